import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { expect, it } from 'vitest';
import { startRedis } from '../../../test/support/redis-server.ts';
import { eventually } from './support/store.ts';

const SCRIPT = `
import { createSessions } from ${JSON.stringify(import.meta.resolve('@coatcheck/session-core'))};
import redis from ${JSON.stringify(import.meta.resolve('@coatcheck/session-redis/runtime'))};

const sessions = createSessions({ driver: redis({ timeout: 400 }) });
const attempt = async () => {
  const session = sessions.open('');
  session.set('value', 1);
  console.log(await session.commit().then(() => 'stored', (error) => error.code));
};
`;

/** Runs a script of its own process and says how it ended. `onLine` hears what it prints. */
async function run(body: string, redisUrl: string, onLine: (line: string) => void = () => undefined) {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', SCRIPT + body], {
    env: { PATH: process.env.PATH, REDIS_URL: redisUrl },
    timeout: 15_000,
  });
  let stdout = '';
  let stderr = '';
  let lastWordAt = 0;
  child.stdout.on('data', (data: Buffer) => {
    stdout += data.toString();
    lastWordAt = Date.now();
    onLine(data.toString().trim());
  });
  child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, stdout: stdout.trim().split('\n'), stderr, msAfterLastWord: Date.now() - lastWordAt };
}

it('a script that has stored a session ends by itself', async () => {
  await using redis = await startRedis();
  const { msAfterLastWord, ...rest } = await run('await attempt();', redis.url);
  expect(rest).toEqual({ code: 0, stdout: ['stored'], stderr: '' });
  expect(msAfterLastWord).toBeLessThan(1000);
});

it('a script that could not reach Redis ends by itself, and nothing is printed', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  const { msAfterLastWord, ...rest } = await run('await attempt(); await attempt();', `redis://127.0.0.1:${port}`);
  expect(rest).toEqual({ code: 0, stdout: ['timeout', 'unavailable'], stderr: '' });
  expect(msAfterLastWord).toBeLessThan(1000);
});

it('a script whose Redis never answers ends by itself, and nothing is printed', async () => {
  await using redis = await startRedis();
  redis.freeze();
  const { msAfterLastWord, ...rest } = await run('await attempt();', redis.url);
  redis.thaw();
  expect(rest).toEqual({ code: 0, stdout: ['timeout'], stderr: '' });
  expect(msAfterLastWord).toBeLessThan(1000);
});

it('a server whose Redis goes and comes back prints nothing, and works again', async () => {
  await using redis = await startRedis();
  const body = `
    await attempt();
    const until = Date.now() + 10_000;
    let seen = '';
    while (Date.now() < until) {
      const session = sessions.open('');
      session.set('value', 1);
      const outcome = await session.commit().then(() => 'well', (error) => error.code);
      if (outcome !== seen) console.log(seen = outcome);
      if (outcome === 'well' && seenDown) break;
      seenDown ||= outcome === 'unavailable';
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  `;
  let restarted: Promise<void> | undefined;
  const outcome = await run(`let seenDown = false;${body}`, redis.url, (line) => {
    if (line === 'stored') void redis.kill();
    if (line.endsWith('unavailable')) restarted ??= redis.restart();
  });
  await eventually(() => restarted !== undefined);
  await restarted;
  expect(outcome.stderr).toBe('');
  expect(outcome.code).toBe(0);
  expect(outcome.stdout[0]).toBe('stored');
  expect(outcome.stdout.at(-1)).toBe('well');
}, 20_000);
