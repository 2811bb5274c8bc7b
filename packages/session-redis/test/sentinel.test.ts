import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { freePort } from '@coatcheck/test-support/ports';
import { redisServerBin, startRedis, type RedisServer } from '@coatcheck/test-support/redis-server';
import { call, change, newKey } from '@coatcheck/test-support/stores';
import { eventually, openInspector, openStore } from './support/store.ts';

let folder: string;
let sentinel: ChildProcess;
let sentinelPort: number;
let master: RedisServer;
let replica: RedisServer;

beforeAll(async () => {
  master = await startRedis({ args: ['--repl-diskless-sync-delay', '0'] });
  replica = await startRedis({ args: ['--replicaof', '127.0.0.1', String(master.port)] });
  folder = await mkdtemp(join(tmpdir(), 'coatcheck-sentinel-'));
  sentinelPort = await freePort();
  const config = join(folder, 'sentinel.conf');
  await writeFile(
    config,
    [
      `port ${sentinelPort}`,
      'bind 127.0.0.1',
      `dir ${folder}`,
      'requirepass watchful',
      `sentinel monitor shop 127.0.0.1 ${master.port} 1`,
      'sentinel down-after-milliseconds shop 2000',
      'sentinel failover-timeout shop 3000',
    ].join('\n'),
  );
  const { bin, env } = await redisServerBin();
  sentinel = spawn(bin, [config, '--sentinel'], { env: { ...process.env, ...env }, stdio: 'ignore' });
  // It knows of the replica after its next look at the master.
  const inspector = openInspector(`redis://:watchful@127.0.0.1:${sentinelPort}`);
  inspector.on('error', () => undefined);
  await eventually(async () => {
    const replicas = (await inspector.call('SENTINEL', 'replicas', 'shop')) as string[][];
    return replicas.some((fields) => fields.includes('slave') && fields.includes('ok'));
  });
  inspector.disconnect();
});

afterAll(async () => {
  sentinel.kill('SIGKILL');
  await Promise.all([once(sentinel, 'exit'), master[Symbol.asyncDispose](), replica[Symbol.asyncDispose]()]);
  await rm(folder, { recursive: true });
});

it('a wrong group, or a wrong password of the Sentinels, is told at once', async () => {
  const node = { host: '127.0.0.1', port: sentinelPort };
  const unknown = openStore({ sentinel: { name: 'precious', nodes: [node], password: 'watchful' } });
  await expect(unknown.read(newKey(), call())).rejects.toMatchObject({
    code: 'configuration',
    message: '[session-redis] The Sentinels do not know a group with this name. Correct `sentinel.name`.',
  });
  const wrong = openStore({ sentinel: { name: 'shop', nodes: [node], password: 'precious' } });
  await expect(wrong.read(newKey(), call())).rejects.toMatchObject({
    code: 'configuration',
    message: expect.stringMatching(/The Sentinels refuse the password/),
  });
});

it('the master that the Sentinels name is used, and the next one after a failover', async () => {
  const gone = await freePort();
  const store = openStore(
    {
      sentinel: {
        name: 'shop',
        nodes: [`127.0.0.1:${gone}`, { host: '127.0.0.1', port: sentinelPort }],
        password: 'watchful',
      },
    },
    300_000,
  );
  const key = newKey();
  const set = new Map([['a', ':1']]);
  await store.patch(key, change({ set }), call());
  const direct = openStore({ host: '127.0.0.1', port: replica.port });
  await eventually(async () => (await direct.read(key, call())) !== null);

  await master.kill();
  expect(await store.patch(key, change({ set: new Map([['b', ':2']]) }), call(300_000))).toBe('applied');
  expect(await store.read(key, call())).toEqual(
    new Map([
      ['a', ':1'],
      ['b', ':2'],
    ]),
  );
  expect(await direct.read(key, call())).toEqual(
    new Map([
      ['a', ':1'],
      ['b', ':2'],
    ]),
  );
  for (const opened of [store, direct]) await opened.close?.();
});
