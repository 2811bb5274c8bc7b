import { expect, it } from 'vitest';
import { startRedis } from '../../../test/support/redis-server.ts';
import { runScript } from './support/script.ts';
import { freePort } from '../../../test/support/ports.ts';

it('a script that has stored a session ends by itself', async () => {
  await using redis = await startRedis();
  const { lingeredMs, ...rest } = await runScript('await attempt({ timeout: 5000 });', redis.url);
  expect(rest).toEqual({ code: 0, stdout: ['stored'], stderr: '' });
  expect(lingeredMs).toBeLessThan(3000);
});

it('a script that could not reach Redis ends by itself, and nothing is printed', async () => {
  const { lingeredMs, ...rest } = await runScript(
    'await attempt(); await attempt();',
    `redis://127.0.0.1:${await freePort()}`,
  );
  expect(rest).toEqual({ code: 0, stdout: ['timeout', 'unavailable'], stderr: '' });
  expect(lingeredMs).toBeLessThan(3000);
});

it('a script whose Redis never answers ends by itself, and nothing is printed', async () => {
  await using redis = await startRedis();
  redis.freeze();
  const { lingeredMs, ...rest } = await runScript('await attempt();', redis.url);
  redis.thaw();
  expect(rest).toEqual({ code: 0, stdout: ['timeout'], stderr: '' });
  expect(lingeredMs).toBeLessThan(3000);
});

it('a server whose Redis goes and comes back prints nothing, and works again', async () => {
  await using redis = await startRedis();
  const body = `
    await attempt();
    let wasDown = false;
    for (let outcome = '', seen = ''; !(wasDown && outcome === 'stored'); wasDown ||= outcome === 'unavailable') {
      await new Promise((resolve) => setTimeout(resolve, 20));
      outcome = await attemptWith();
      if (outcome !== seen) console.log((seen = outcome));
    }
  `;
  let killed: Promise<void> | undefined;
  let restarted: Promise<void> | undefined;
  const { lingeredMs: _, ...rest } = await runScript(body, redis.url, (line) => {
    if (line === 'stored' && !killed) killed = redis.kill();
    if (line === 'unavailable') restarted ??= redis.restart();
  });
  await restarted;
  expect(rest).toEqual({ code: 0, stdout: expect.arrayContaining(['unavailable']), stderr: '' });
  expect(rest.stdout.at(-1)).toBe('stored');
}, 20_000);

it('the client is loaded when it is first needed', async () => {
  await using redis = await startRedis();
  const body = `
    import { createRequire } from 'node:module';
    const { redisDriver } = await import(${JSON.stringify(import.meta.resolve('@coatcheck/session-redis'))});
    redisDriver();
    redis();
    const isLoaded = () => Object.keys(createRequire('/').cache).some((file) => file.includes('ioredis'));
    console.log(isLoaded());
    await attempt();
    console.log(isLoaded());
  `;
  expect((await runScript(body, redis.url)).stdout).toEqual(['false', 'stored', 'true']);
});
