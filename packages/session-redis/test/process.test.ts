import { expect, it } from 'vitest';
import { startRedis } from '@coatcheck/test-support/redis-server';
import { runScript } from './support/script.ts';
import { freePort } from '@coatcheck/test-support/ports';

it('a script that has stored a session ends by itself', async () => {
  await using redis = await startRedis();
  const ended = await runScript('await attempt({ timeout: 600_000 });', redis.url);
  expect(ended).toMatchObject({ code: 0, stdout: ['stored'], stderr: '' });
  // It was not ended by its server.
  expect(redis.pid).toBeDefined();
});

it('a script that could not reach Redis ends by itself, and nothing is printed', async () => {
  const ended = await runScript('await attempt(); await attempt();', `redis://127.0.0.1:${await freePort()}`);
  expect(ended).toMatchObject({ code: 0, stdout: ['unavailable', 'unavailable'], stderr: '' });
});

it('a script whose Redis never answers ends by itself, and nothing is printed', async () => {
  await using redis = await startRedis();
  redis.freeze();
  const ended = await runScript('await attempt();', redis.url);
  expect(ended).toMatchObject({ code: 0, stdout: ['unavailable'], stderr: '' });
  redis.thaw();
});

it('a server whose Redis goes and comes back prints nothing, and works again', async () => {
  await using redis = await startRedis();
  const body = `
    const config = { timeout: 5000 };
    await attempt(config);
    let wasDown = false;
    for (let outcome = '', seen = ''; !(wasDown && outcome === 'stored'); wasDown ||= outcome === 'unavailable') {
      await new Promise((resolve) => setTimeout(resolve, 20));
      outcome = await attemptWith(config);
      if (outcome !== seen) console.log((seen = outcome));
    }
  `;
  let killed: Promise<void> | undefined;
  let restarted: Promise<void> | undefined;
  const ended = await runScript(body, redis.url, (line) => {
    if (line === 'stored' && !killed) killed = redis.kill();
    if (line === 'unavailable') restarted ??= redis.restart();
  });
  await restarted;
  expect(ended).toMatchObject({ code: 0, stdout: expect.arrayContaining(['unavailable']), stderr: '' });
  expect(ended.stdout.at(-1)).toBe('stored');
});

it('the client is loaded when it is first needed', async () => {
  await using redis = await startRedis();
  const body = `
    import { createRequire } from 'node:module';
    const { redisDriver } = await import(${JSON.stringify(import.meta.resolve('@coatcheck/session-redis'))});
    redisDriver();
    redis();
    const isLoaded = () => Object.keys(createRequire('/').cache).some((file) => file.includes('ioredis'));
    console.log(isLoaded());
    await attempt({ timeout: 60_000 });
    console.log(isLoaded());
  `;
  expect((await runScript(body, redis.url)).stdout).toEqual(['false', 'stored', 'true']);
});
