import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect, createServer, type AddressInfo, Socket } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import { Writable } from 'node:stream';
import { inspect } from 'node:util';
import { createSessions, isSessionDriverError } from '@coatcheck/session-core';
import redisDriver from '@coatcheck/session-redis/runtime';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { moveClock } from '@coatcheck/test-support/clock';
import { startProxy } from '@coatcheck/test-support/fault-proxy';
import { freePort } from '@coatcheck/test-support/ports';
import { startRedis, type RedisServer } from '@coatcheck/test-support/redis-server';
import { call, change, newKey } from '@coatcheck/test-support/stores';
import { closeWhenDead } from '../src/client.ts';
import type { RedisDriverConfig } from '../src/index.ts';
import { CERTIFICATE, startTls } from './support/tls.ts';
import { eventually, openInspector, openStore } from './support/store.ts';

/** A site's sessions: every operation under the driver's own deadline. */
function openSite(config: RedisDriverConfig) {
  const sessions = createSessions({ driver: redisDriver(config) });
  return {
    /** Stores `value` in a new session and returns its cookie. */
    async write(value: string, cookie = ''): Promise<string> {
      const session = sessions.open(cookie);
      session.set('value', value);
      return (await session.commit())?.split(';')[0] ?? cookie;
    },
    read: (cookie: string) => sessions.open(cookie).get('value'),
  };
}

/** A deadline that is further away than the limit of a test: who waits for it, or for a part of it, fails. */
const NEVER_MS = 600_000;

/** What an operation is rejected with; undefined when it is not. */
async function failureOf(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => undefined,
    (error: unknown) => error,
  );
}

async function codeOf(work: Promise<unknown>): Promise<string | undefined> {
  const error = await failureOf(work);
  return isSessionDriverError(error) ? error.code : undefined;
}

/** Asks until there is an answer. */
async function untilWell(ask: () => Promise<unknown>): Promise<void> {
  await eventually(async () => (await failureOf(ask())) === undefined);
}

/** Redis's number of the connection of the store. A new connection has a higher one. */
async function idOfConnection(redis: RedisServer): Promise<number> {
  const inspector = openInspector(redis.url);
  const clients = await inspector.client('LIST');
  inspector.disconnect();
  return Math.max(...[...String(clients).matchAll(/^id=(\d+).*cmd=(?!client)/gm)].map(([, id]) => Number(id)));
}

async function keysIn(redis: RedisServer): Promise<number> {
  const inspector = openInspector(redis.url);
  const count = await inspector.dbsize();
  inspector.disconnect();
  return count;
}

describe('a Redis that is not there', () => {
  it('an operation waits for it, within its deadline', async () => {
    const port = await freePort();
    const site = openSite({ host: '127.0.0.1', port, timeout: NEVER_MS });
    const writing = site.write('patient');
    await using _redis = await startRedis({ port });
    expect(await site.read(await writing)).toBe('patient');
  });

  it('after the deadline it is an error, nothing is sent for later ones, and all is well after its start', async () => {
    const port = await freePort();
    const site = openSite({ host: '127.0.0.1', port, timeout: 600 });
    const says = `Cannot connect to Redis at 127.0.0.1:${port}: ECONNREFUSED. Nothing was sent.`;
    for (const name of ['first', 'second']) {
      const error = { code: 'unavailable', message: expect.stringContaining(says) };
      expect(await failureOf(site.write(name))).toMatchObject(error);
    }

    await using redis = await startRedis({ port });
    await untilWell(() => site.write('third'));
    // What had failed was not sent after all.
    expect(await keysIn(redis)).toBe(1);
  });

  it('a session outlives a restart, and a killed server', async () => {
    await using redis = await startRedis();
    const site = openSite({ url: redis.url, timeout: NEVER_MS });
    const cookie = await site.write('kept');
    await redis.restart();
    expect(await site.read(cookie)).toBe('kept');
    await redis.kill();
    const reading = site.read(cookie);
    await redis.restart();
    expect(await reading).toBe('kept');
  });
});

describe('a Redis that is silent', () => {
  it('is an error after the deadline, and well again without a restart of the app', async () => {
    await using redis = await startRedis();
    await using proxy = await startProxy({ target: redis.port });
    const site = openSite({ host: '127.0.0.1', port: proxy.port, timeout: 5000 });
    const cookie = await site.write('kept');

    await proxy.silence();
    expect(await codeOf(site.read(cookie))).toBe('timeout');
    await proxy.pass();
    await untilWell(() => site.read(cookie));
  });

  it('also when it was silent from the start', async () => {
    await using redis = await startRedis();
    await using proxy = await startProxy({ target: redis.port });
    await proxy.silence();
    const site = openSite({ host: '127.0.0.1', port: proxy.port, timeout: 600 });
    expect(await failureOf(site.write('lost'))).toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/Cannot connect to Redis at .*: no answer\. Nothing was sent\./),
    });
    await proxy.pass();
    await untilWell(() => site.write('well'));
    expect(await keysIn(redis)).toBe(1);
  });

  it('a connection that died without a word is replaced, without anything that ends it', async () => {
    await using redis = await startRedis();
    await using dead = await startProxy({ target: redis.port });
    const store = openStore({ host: '127.0.0.1', port: dead.port }, 3000);
    const key = newKey();
    await store.patch(key, change({ set: new Map([['a', ':1']]) }), call());
    const before = dead.connections;

    await dead.silence();
    const reading = store.read(key, call(NEVER_MS));
    await eventually(() => dead.connections > before);
    await dead.pass();
    expect(await reading).toEqual(new Map([['a', ':1']]));
    await store.close?.();
  });

  it('a handshake that nobody answers is not waited for', async () => {
    await using redis = await startRedis();
    const sockets: Socket[] = [];
    const server = createServer((client) => {
      sockets.push(client.on('error', () => undefined));
      // The first one is never answered and never ended.
      if (sockets.length === 1) client.resume();
      else client.pipe(connect(redis.port, '127.0.0.1')).pipe(client);
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const store = openStore({ host: '127.0.0.1', port: (server.address() as AddressInfo).port });
    expect(await store.read(newKey(), call(NEVER_MS))).toBeNull();
    await store.close?.();
    server.close();
    await once(server, 'close');
    expect(sockets.every((socket) => socket.destroyed)).toBe(true);
  });

  it('a frozen server is waited for', async () => {
    await using redis = await startRedis();
    const site = openSite({ url: redis.url, timeout: NEVER_MS });
    const cookie = await site.write('before');
    redis.freeze();
    const writing = site.write('after', cookie);
    let isStored = false;
    void writing.then(() => (isStored = true));
    // Somebody else, who began later and waits for less, has given up by then.
    expect(await codeOf(openSite({ url: redis.url, timeout: 800 }).read(cookie))).toBe('unavailable');
    expect(isStored).toBe(false);
    redis.thaw();
    await writing;
    expect(await site.read(cookie)).toBe('after');
  });
});

it('an answer that is nested too deeply to be read is an error, and ends no process', async () => {
  const server = createServer((client) => {
    client.on('error', () => undefined).on('data', () => client.write('*1\r\n'.repeat(50_000)));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const store = openStore({ host: '127.0.0.1', port: (server.address() as AddressInfo).port });
  expect(await failureOf(store.read(newKey(), call(2000)))).toMatchObject({
    code: 'unavailable',
    message: expect.stringMatching(/Maximum call stack size exceeded/),
  });
  await store.close?.();
  server.close();
  await once(server, 'close');
});

it('an answer that came while the loop was blocked is read, and the connection kept', async () => {
  await using redis = await startRedis();
  const store = openStore({ url: redis.url }, 200);
  const key = newKey();
  await store.patch(key, change({ set: new Map([['a', ':1']]) }), call());
  redis.freeze();
  const patch = store.patch(key, change({ set: new Map([['a', ':2']]) }), call());
  // What was written in this turn is on its way after the next one.
  await turn();
  // As in a request's handler: from here, the timers come before what the network brings.
  await readFile(import.meta.filename);
  redis.thaw();
  // Until Redis has answered somebody who asked later, and for longer than a connection may be silent.
  const ask = `const s = require('net').connect(${redis.port}, '127.0.0.1', () => s.write('PING\\r\\n')); s.on('data', () => s.end())`;
  expect(spawnSync(process.execPath, ['-e', ask]).status).toBe(0);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1500);
  expect(await patch).toBe('applied');
  await store.close?.();
});

describe('a connection that owes a reply', () => {
  /** A connection whose data never leaves the process, 1000 ms after a command was sent on it. */
  function afterTheTimeout({ isCorked }: { isCorked: boolean }) {
    vi.useFakeTimers();
    onTestFinished(() => void vi.useRealTimers());
    const stream = new Writable({ write: () => undefined });
    const abort = vi.fn<() => unknown>(() => stream.destroy());
    const commandQueue = { length: 0 };
    const redis = { stream: Object.assign(stream, { resetAndDestroy: abort }), commandQueue };
    closeWhenDead(redis as never, 1000)();
    commandQueue.length = 1;
    if (isCorked) stream.cork();
    stream.write('command');
    vi.advanceTimersByTime(1000);
    return abort;
  }

  it('is dead after the timeout if data has not left the process', () => {
    expect(afterTheTimeout({ isCorked: false })).toHaveBeenCalledTimes(1);
  });

  it('is not dead yet if the data is only waiting for the end of this turn', () => {
    const abort = afterTheTimeout({ isCorked: true });
    expect(abort).not.toHaveBeenCalled();
    vi.advanceTimersByTime(1100);
    expect(abort).toHaveBeenCalledTimes(1);
  });
});

it('a read is sent even if the process was suspended before the commands of the same turn were sent', async () => {
  await using redis = await startRedis();
  const store = openStore({ url: redis.url });
  const key = newKey();
  await store.patch(key, change({ set: new Map([['a', ':1']]) }), call());
  const before = await idOfConnection(redis);
  const read = store.read(key, call());
  moveClock(61_000);
  expect(await read).toEqual(new Map([['a', ':1']]));
  expect(await idOfConnection(redis)).toBe(before);
  await store.close?.();
});

describe('a write whose caller was told that it failed', () => {
  it('is not sent when it was waiting for a connection', async () => {
    await using redis = await startRedis();
    await using proxy = await startProxy({ target: redis.port });
    const store = openStore({ host: '127.0.0.1', port: proxy.port });
    const [one, other] = [newKey(), newKey()];
    await store.patch(one, change({ set: new Map([['a', ':1']]) }), call());
    await proxy.refuse();
    // Until the store has noticed.
    await expect(store.read(one, call(100))).rejects.toMatchObject({ code: 'unavailable' });
    const patch = store.patch(one, change({ set: new Map([['a', ':2']]) }), call(300));
    await expect(patch).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/Nothing was sent/),
    });

    await proxy.pass();
    // Sent after it, so that it would have arrived before.
    await store.patch(other, change({ set: new Map([['a', ':1']]) }), call());
    expect(await store.read(one, call())).toEqual(new Map([['a', ':1']]));
    await store.close?.();
  });

  it('is not sent when its signal had aborted before', async () => {
    await using redis = await startRedis();
    const store = openStore({ url: redis.url });
    const key = newKey();
    await store.read(key, call());
    const patch = store.patch(key, change({ set: new Map([['a', ':1']]) }), { signal: AbortSignal.abort() });
    await expect(patch).rejects.toMatchObject({ code: 'unavailable' });
    expect(await store.read(key, call())).toBeNull();
    await store.close?.();
  });

  it.each([
    ['its signal aborts', (abort: () => void) => abort()],
    ['the process is suspended for longer than the timeout', () => moveClock(61_000)],
  ])('is not sent when %s before the commands of the same turn are', async (_what, interrupt) => {
    await using redis = await startRedis();
    const store = openStore({ url: redis.url });
    const [one, other] = [newKey(), newKey()];
    // Afterwards there are a connection and the script, so a patch is handed to the socket at once.
    await store.patch(other, change({ set: new Map([['a', ':1']]) }), call());
    const controller = new AbortController();
    const set = new Map([['a', ':2']]);
    const patch = store.patch(one, change({ set }), { signal: controller.signal });
    const otherPatch = store.patch(other, change({ set }), call());
    const read = store.read(other, call());
    interrupt(() => controller.abort());
    expect(await codeOf(patch)).toBe('interrupted');
    // It was in the same write, and nobody knows whether it was sent.
    expect(await codeOf(otherPatch)).toBe('interrupted');
    expect(await read).toEqual(new Map([['a', ':1']]));
    expect(await store.read(one, call())).toBeNull();
    await store.close?.();
  });

  it('does not leave the process later on, when the network took only a part of it', async () => {
    await using redis = await startRedis();
    await using proxy = await startProxy({ target: redis.port });
    const store = openStore({ host: '127.0.0.1', port: proxy.port }, 3000);
    const key = newKey();
    await store.read(key, call());
    await proxy.hold();
    // More than the buffers of the sockets take.
    const large = `:"${'x'.repeat(60_000_000)}"`;
    // Rejected although nobody reads what was sent.
    expect(await codeOf(store.patch(key, change({ set: new Map([['large', large]]) }), call(3000)))).toBe(
      'interrupted',
    );
    await proxy.pass();
    await store.patch(newKey(), change({ set: new Map([['a', ':1']]) }), call());
    expect(await store.read(key, call())).toBeNull();
    await store.close?.();
  });

  it('is told that it may have been stored when the connection broke before the answer', async () => {
    await using redis = await startRedis();
    await using proxy = await startProxy({ target: redis.port });
    const store = openStore({ host: '127.0.0.1', port: proxy.port });
    const direct = openStore({ url: redis.url });
    const key = newKey();
    // Redis has the script afterwards.
    await store.patch(newKey(), change({ set: new Map([['a', ':1']]) }), call());
    await proxy.delay(10_000);
    const patch = store.patch(key, change({ set: new Map([['a', ':1']]) }), call());
    await eventually(async () => (await direct.read(key, call())) !== null);
    await proxy.reset();
    await expect(patch).rejects.toMatchObject({
      code: 'interrupted',
      message:
        '[session-redis] The connection to Redis broke during a write. It may have been stored; it is not sent again.',
    });
    for (const opened of [store, direct]) await opened.close?.();
  });
});

it('the commands of one turn of the event loop are sent in one write, also those of different ticks', async () => {
  await using redis = await startRedis();
  await using proxy = await startProxy({ target: redis.port });
  const store = openStore({ host: '127.0.0.1', port: proxy.port });
  await store.read(newKey(), call());
  const write = vi.spyOn(Socket.prototype as unknown as { _writev(): unknown }, '_writev');
  onTestFinished(() => write.mockRestore());
  const reads: Promise<unknown>[] = [];
  for (let tick = 0; tick < 10; tick++) {
    reads.push(store.read(newKey(), call()));
    await new Promise((resolve) => process.nextTick(resolve));
  }
  await Promise.all(reads);
  expect(write).toHaveBeenCalledTimes(1);
  await store.close?.();
});

it('a read whose connection broke is sent again', async () => {
  await using redis = await startRedis();
  await using proxy = await startProxy({ target: redis.port });
  const store = openStore({ host: '127.0.0.1', port: proxy.port });
  const key = newKey();
  await store.patch(key, change({ set: new Map([['a', ':1']]) }), call());
  await proxy.cut(3);
  const reading = store.read(key, call());
  await eventually(() => proxy.open === 0);
  await proxy.pass();
  expect(await reading).toEqual(new Map([['a', ':1']]));
  await store.close?.();
});

describe('what waiting does not mend is told at once', () => {
  const wrong: [what: string, args: string[], config: RedisDriverConfig, message: RegExp][] = [
    ['a wrong password', ['--requirepass', 'right'], { password: 'precious' }, /refuses the password/],
    ['a wrong user', ['--requirepass', 'right'], { username: 'precious', password: 'right' }, /refuses the password/],
    ['no password', ['--requirepass', 'right'], {}, /requires a password/],
    ['a database that is not there', [], { db: 99 }, /no database with this number/],
  ];
  for (const [what, args, config, message] of wrong) {
    it(`${what} is an error that says so`, async () => {
      await using redis = await startRedis({ args });
      const site = openSite({ host: '127.0.0.1', port: redis.port, timeout: NEVER_MS, ...config });
      const error = await failureOf(site.write('precious'));
      expect(error).toMatchObject({ code: 'configuration', message: expect.stringMatching(message) });
      expect(inspect(error, { depth: 20, showHidden: true })).not.toContain('precious');
    });
  }

  it('a certificate that nobody vouches for, or that is for another name', async () => {
    await using redis = await startRedis();
    await using tls = await startTls({ target: redis.port });
    const place = { host: '127.0.0.1', port: tls.port, timeout: NEVER_MS };
    for (const options of [true, { ca: CERTIFICATE }]) {
      expect(await failureOf(openSite({ ...place, tls: options }).write('precious'))).toMatchObject({
        code: 'configuration',
        message: expect.stringMatching(/Cannot open a TLS connection .*CERT/),
      });
    }
    const trusted = openSite({ ...place, tls: { ca: CERTIFICATE, servername: 'redis.test' } });
    expect(await trusted.read(await trusted.write('well'))).toBe('well');
    const careless = openSite({ url: `rediss://127.0.0.1:${tls.port}`, tls: { rejectUnauthorized: false } });
    expect(await careless.read(await careless.write('well'))).toBe('well');
  });

  it('a cluster that is none', async () => {
    await using redis = await startRedis();
    const site = openSite({ cluster: [`127.0.0.1:${redis.port}`], timeout: NEVER_MS });
    expect(await failureOf(site.write('precious'))).toMatchObject({
      code: 'configuration',
      message: expect.stringMatching(/is not a cluster/),
    });
  });

  it('and when Redis takes the password, all is well without a restart of the app', async () => {
    await using redis = await startRedis();
    const inspector = openInspector(redis.url);
    await inspector.config('SET', 'requirepass', 'other');
    const site = openSite({ url: `redis://:right@127.0.0.1:${redis.port}` });
    expect(await codeOf(site.write('early'))).toBe('configuration');
    await inspector.config('SET', 'requirepass', 'right');
    expect(await site.read(await site.write('well'))).toBe('well');
    inspector.disconnect();
  });

  it('a password that Redis does not need is no error', async () => {
    await using redis = await startRedis();
    const site = openSite({ url: `redis://:needless@127.0.0.1:${redis.port}` });
    expect(await site.read(await site.write('well'))).toBe('well');
  });
});

describe('a Redis that cannot serve for now', () => {
  it('loading after a restart: an operation asks for half of its time, then it is unavailable, and well again afterwards', async () => {
    // It answers once every 1,024 commands that it loads, and takes its time for each.
    await using redis = await startRedis({ args: ['--key-load-delay', '250'] });
    await using proxy = await startProxy({ target: redis.port });
    const site = openSite({ host: '127.0.0.1', port: proxy.port, timeout: NEVER_MS });
    const cookie = await site.write('kept');
    const inspector = openInspector(redis.url, { enableReadyCheck: false });
    const pipeline = inspector.pipeline();
    for (let index = 0; index < 60_000; index++) pipeline.set('filler', index);
    await pipeline.exec();

    const { pid } = redis;
    const restarting = redis.restart();
    await eventually(() => redis.pid !== pid);
    moveClock(0);
    let failure: unknown;
    const reading = failureOf(site.read(cookie)).then((error) => (failure = error));
    const isToldAgain = async () => {
      const before = proxy.bytesToClients;
      await eventually(() => proxy.bytesToClients > before);
    };
    for (const passes of [0, NEVER_MS / 2 - 1]) {
      moveClock(passes);
      for (let time = 0; time < 3; time++) await isToldAgain();
      expect(failure).toBeUndefined();
    }
    moveClock(1);
    await reading;
    expect(failure).toMatchObject({ code: 'unavailable', message: expect.stringMatching(/still loading/) });
    await inspector.config('SET', 'key-load-delay', '0');
    await restarting;
    inspector.disconnect();
    await untilWell(() => site.read(cookie));
    expect(await site.read(cookie)).toBe('kept');
  });

  it('a replica takes no writes, until it is the master', async () => {
    await using redis = await startRedis();
    const inspector = openInspector(redis.url);
    const site = openSite({ url: redis.url });
    const cookie = await site.write('kept');
    await inspector.replicaof('127.0.0.1', await freePort());
    expect(await site.read(cookie)).toBe('kept');
    expect(await failureOf(site.write('lost', cookie))).toMatchObject({
      code: 'refused',
      message: expect.stringMatching(/is a replica/),
    });
    expect(await site.read(cookie)).toBe('kept');
    const promoted = untilWell(() => site.write('stored', cookie));
    await inspector.replicaof('NO', 'ONE');
    await promoted;
    expect(await site.read(cookie)).toBe('stored');
    inspector.disconnect();
  });

  it('has no connection left, until one is free', async () => {
    await using redis = await startRedis();
    const inspector = openInspector(redis.url);
    await inspector.config('SET', 'maxclients', '1');
    const site = openSite({ url: redis.url, timeout: 2000 });
    expect(await failureOf(site.write('lost'))).toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/no connections left/),
    });
    await inspector.config('SET', 'maxclients', '100');
    await untilWell(() => site.write('well'));
    inspector.disconnect();
  });
});

it('one connection serves all, and closing ends it after what is under way is answered', async () => {
  await using redis = await startRedis();
  await using proxy = await startProxy({ target: redis.port });
  const store = openStore({ host: '127.0.0.1', port: proxy.port });
  const key = newKey();
  await Promise.all(Array.from({ length: 50 }, () => store.read(key, call())));
  expect(proxy.connections).toBe(1);
  await store.patch(key, change({ set: new Map([['a', ':1']]) }), call());
  const patch = store.patch(key, change({ set: new Map([['a', ':2']]) }), call());
  await store.close?.();
  expect(await patch).toBe('applied');
  await eventually(() => proxy.open === 0);
  await expect(store.read(key, call())).rejects.toMatchObject({ code: 'unavailable' });
});
