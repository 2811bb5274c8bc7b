import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { connect } from 'node:net';
import { expect, test } from 'vitest';
import { startRedis } from './support/redis-server.ts';

/** Sends one inline command. Resolves to the raw reply. */
async function say(port: number, command: string): Promise<string> {
  const socket = connect(port, '127.0.0.1', () => socket.write(`${command}\r\n`));
  try {
    const [reply] = await once(socket, 'data');
    return String(reply);
  } finally {
    socket.destroy();
  }
}

test('a started server stores values', async () => {
  await using redis = await startRedis();
  expect(await say(redis.port, 'SET coat 17')).toBe('+OK\r\n');
  expect(await say(redis.port, 'GET coat')).toBe('$2\r\n17\r\n');
});

test('arguments override the defaults', async () => {
  await using redis = await startRedis({ args: ['--appendonly', 'no', '--requirepass', 'ticket'] });
  expect(await say(redis.port, 'PING')).toMatch(/^-NOAUTH/);
});

test('a frozen server accepts connections but answers only after it is thawed', async () => {
  await using redis = await startRedis();
  redis.freeze();
  const answered: string[] = [];
  const reply = say(redis.port, 'PING').then((text) => answered.push(text));
  // The reply of a second server shows that there was time for a reply of the first.
  await using other = await startRedis();
  expect(await say(other.port, 'PING')).toBe('+PONG\r\n');
  expect(answered).toEqual([]);
  redis.thaw();
  await reply;
  expect(answered).toEqual(['+PONG\r\n']);
});

test.for(['stop', 'kill'] as const)('after %s nothing answers, and a restart restores the data', async (how) => {
  await using redis = await startRedis();
  await say(redis.port, 'SET coat 17');
  await redis[how]();
  expect(redis.pid).toBeUndefined();
  await expect(say(redis.port, 'PING')).rejects.toThrow('ECONNREFUSED');
  await redis.restart();
  expect(await say(redis.port, 'GET coat')).toBe('$2\r\n17\r\n');
});

test('a running server restarts with its data', async () => {
  await using redis = await startRedis();
  const { pid } = redis;
  await say(redis.port, 'SET coat 17');
  await redis.restart();
  expect(redis.pid).not.toBe(pid);
  expect(await say(redis.port, 'GET coat')).toBe('$2\r\n17\r\n');
});

test('a server that cannot start reports the reason', async () => {
  await using redis = await startRedis();
  await expect(startRedis({ port: redis.port })).rejects.toThrow('EADDRINUSE');
  await expect(startRedis({ args: ['--nonsense', 'yes'] })).rejects.toThrow(/did not start[^]*nonsense/);
});

test('a server and its data are removed when the process that started it ends, even if it is killed', async () => {
  const script = `
    const { startRedis } = await import(${JSON.stringify(new URL('support/redis-server.ts', import.meta.url).href)});
    const { port } = await startRedis();
    console.log(JSON.stringify({ port }));
    setInterval(() => {}, 1000);`;
  const owner = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = await once(owner.stdout, 'data');
  const { port } = JSON.parse(String(line)) as { port: number };
  const folder = /\/.*coatcheck-redis-\w+/.exec(await say(port, 'CONFIG GET dir'))![0];
  expect(existsSync(folder)).toBe(true);
  owner.kill('SIGKILL');
  await expect.poll(() => say(port, 'PING').catch((error: NodeJS.ErrnoException) => error.code)).toBe('ECONNREFUSED');
  await expect.poll(() => existsSync(folder)).toBe(false);
});
