import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { inspect } from 'node:util';
import { createSessions, isSessionDriverError } from '@coatcheck/session-core';
import redisDriver from '@coatcheck/session-redis/runtime';
import { describe, expect, it } from 'vitest';
import { startProxy } from '../../../test/support/fault-proxy.ts';
import { freePort } from '../../../test/support/ports.ts';
import { startRedis, type RedisServer } from '../../../test/support/redis-server.ts';
import { call, change, newKey } from '../../../test/support/stores.ts';
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

async function timed<Result>(work: Promise<Result>) {
  const startedAt = performance.now();
  const outcome = await work.then(
    (value) => ({ value, error: undefined }),
    (error: unknown) => ({ value: undefined, error }),
  );
  return { ...outcome, ms: performance.now() - startedAt };
}

function codeOf(error: unknown): string | undefined {
  return isSessionDriverError(error) ? error.code : undefined;
}

/** Asks until there is an answer; how long that took. */
async function untilWell(ask: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await eventually(() =>
    ask().then(
      () => true,
      () => false,
    ),
  );
  return performance.now() - startedAt;
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
    const site = openSite({ host: '127.0.0.1', port, timeout: 5000 });
    const writing = site.write('patient');
    await using _redis = await startRedis({ port });
    expect(await site.read(await writing)).toBe('patient');
  });

  it('after the deadline it is an error, later ones fail at once, and all is well within 250 ms of its start', async () => {
    const port = await freePort();
    const site = openSite({ host: '127.0.0.1', port, timeout: 600 });
    const first = await timed(site.write('first'));
    expect(codeOf(first.error)).toBe('timeout');
    expect(first.ms).toBeLessThan(1100);
    const second = await timed(site.write('second'));
    expect(codeOf(second.error)).toBe('unavailable');
    expect(second.ms).toBeLessThan(50);

    await using redis = await startRedis({ port });
    expect(await untilWell(() => site.write('third'))).toBeLessThan(1000);
    // What had failed was not sent after all.
    expect(await keysIn(redis)).toBe(1);
  });

  it('a session outlives a restart, and a killed server', async () => {
    await using redis = await startRedis();
    const site = openSite({ url: redis.url });
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
    const site = openSite({ host: '127.0.0.1', port: proxy.port, timeout: 600 });
    const cookie = await site.write('kept');

    await proxy.silence();
    const reading = await timed(site.read(cookie));
    expect(codeOf(reading.error)).toBe('timeout');
    expect(reading.ms).toBeLessThan(1100);
    await proxy.pass();
    expect(await untilWell(() => site.read(cookie))).toBeLessThan(1000);
  });

  it('also when it was silent from the start', async () => {
    await using redis = await startRedis();
    await using proxy = await startProxy({ target: redis.port });
    await proxy.silence();
    const site = openSite({ host: '127.0.0.1', port: proxy.port, timeout: 600 });
    expect(codeOf((await timed(site.write('lost'))).error)).toBe('timeout');
    await proxy.pass();
    expect(await untilWell(() => site.write('well'))).toBeLessThan(1000);
    expect(await keysIn(redis)).toBe(1);
  });

  it('a connection that died without a word is replaced, without anything that ends it', async () => {
    await using redis = await startRedis();
    await using dead = await startProxy({ target: redis.port });
    const store = openStore({ host: '127.0.0.1', port: dead.port }, 300);
    const key = newKey();
    await store.patch(key, change({ set: new Map([['a', ':1']]) }), call());
    const before = dead.connections;

    await dead.silence();
    const reading = store.read(key, call(10_000));
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
    expect(await store.read(newKey(), call(2000))).toBeNull();
    await store.close?.();
    server.close();
    await once(server, 'close');
    expect(sockets.every((socket) => socket.destroyed)).toBe(true);
  });

  it('a frozen server is waited for', async () => {
    await using redis = await startRedis();
    const site = openSite({ url: redis.url, timeout: 5000 });
    const cookie = await site.write('before');
    redis.freeze();
    const writing = site.write('after', cookie);
    setTimeout(() => redis.thaw(), 800);
    await writing;
    expect(await site.read(cookie)).toBe('after');
  });
});

it('an answer that came while the loop was blocked is read, and the connection kept', async () => {
  await using redis = await startRedis();
  const store = openStore({ url: redis.url }, 200);
  const key = newKey();
  await store.patch(key, change({ set: new Map([['a', ':1']]) }), call());
  redis.freeze();
  const patch = store.patch(key, change({ set: new Map([['a', ':2']]) }), call());
  await new Promise((resolve) => setTimeout(resolve, 50));
  // As in a request's handler: from here, the timers come before what the network brings.
  await readFile(import.meta.filename);
  redis.thaw();
  // Longer than a connection may be silent.
  const blockedUntil = Date.now() + 1500;
  while (Date.now() < blockedUntil);
  expect(await patch).toBe('applied');
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
      message: expect.stringMatching(/nothing was sent/),
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

  it('does not leave the process later on, when the network took only a part of it', async () => {
    await using redis = await startRedis();
    await using proxy = await startProxy({ target: redis.port });
    const store = openStore({ host: '127.0.0.1', port: proxy.port }, 400);
    const key = newKey();
    await store.read(key, call());
    await proxy.hold();
    // More than the buffers of the sockets take.
    const large = `:"${'x'.repeat(60_000_000)}"`;
    const { error, ms } = await timed(store.patch(key, change({ set: new Map([['large', large]]) }), call(400)));
    expect(codeOf(error)).toBe('interrupted');
    expect(ms).toBeLessThan(1000);
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
        '[session-redis] The connection to Redis broke while a write was under way. It may have been stored; it is not sent again.',
    });
    for (const opened of [store, direct]) await opened.close?.();
  });
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
    ['no password', ['--requirepass', 'right'], {}, /wants a password/],
    ['a database that is not there', [], { db: 99 }, /no database of that number/],
  ];
  for (const [what, args, config, message] of wrong) {
    it(`${what} is an error that says so`, async () => {
      await using redis = await startRedis({ args });
      const site = openSite({ host: '127.0.0.1', port: redis.port, ...config });
      const { error, ms } = await timed(site.write('precious'));
      expect(error).toMatchObject({ code: 'configuration', message: expect.stringMatching(message) });
      expect(inspect(error, { depth: 20, showHidden: true })).not.toContain('precious');
      expect(ms).toBeLessThan(1000);
    });
  }

  it('a certificate that nobody vouches for, or that is for another name', async () => {
    await using redis = await startRedis();
    await using tls = await startTls({ target: redis.port });
    const place = { host: '127.0.0.1', port: tls.port };
    for (const options of [true, { ca: CERTIFICATE }]) {
      const { error, ms } = await timed(openSite({ ...place, tls: options }).write('precious'));
      expect(error).toMatchObject({
        code: 'configuration',
        message: expect.stringMatching(/no TLS connection .*CERT/),
      });
      expect(ms).toBeLessThan(1000);
    }
    const trusted = openSite({ ...place, tls: { ca: CERTIFICATE, servername: 'redis.test' } });
    expect(await trusted.read(await trusted.write('well'))).toBe('well');
    const careless = openSite({ url: `rediss://127.0.0.1:${tls.port}`, tls: { rejectUnauthorized: false } });
    expect(await careless.read(await careless.write('well'))).toBe('well');
  });

  it('a cluster that is none', async () => {
    await using redis = await startRedis();
    const site = openSite({ cluster: [`127.0.0.1:${redis.port}`] });
    const { error, ms } = await timed(site.write('precious'));
    expect(error).toMatchObject({ code: 'configuration', message: expect.stringMatching(/is no cluster/) });
    expect(ms).toBeLessThan(1000);
  });

  it('and when Redis takes the password, all is well without a restart of the app', async () => {
    await using redis = await startRedis();
    const inspector = openInspector(redis.url);
    await inspector.config('SET', 'requirepass', 'other');
    const site = openSite({ url: `redis://:right@127.0.0.1:${redis.port}` });
    expect(codeOf((await timed(site.write('early'))).error)).toBe('configuration');
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
  it('loading after a restart: an operation waits for half of its time, then it is unavailable, and well again afterwards', async () => {
    // It answers once every 1,024 commands that it loads, and takes its time for each.
    await using redis = await startRedis({ args: ['--key-load-delay', '250'] });
    const site = openSite({ url: redis.url, timeout: 2000 });
    const cookie = await site.write('kept');
    const inspector = openInspector(redis.url);
    const pipeline = inspector.pipeline();
    for (let index = 0; index < 10_000; index++) pipeline.set('filler', index);
    await pipeline.exec();
    inspector.disconnect();

    const { pid } = redis;
    const restarting = redis.restart();
    await eventually(() => redis.pid !== pid);
    const { error, ms } = await timed(site.read(cookie));
    expect(error).toMatchObject({ code: 'unavailable', message: expect.stringMatching(/still loading/) });
    expect(ms).toBeGreaterThan(900);
    await restarting;
    expect(await untilWell(() => site.read(cookie))).toBeLessThan(1000);
    expect(await site.read(cookie)).toBe('kept');
  }, 20_000);

  it('a replica takes no writes, until it is the master', async () => {
    await using redis = await startRedis();
    const inspector = openInspector(redis.url);
    const site = openSite({ url: redis.url, timeout: 2000 });
    const cookie = await site.write('kept');
    await inspector.replicaof('127.0.0.1', await freePort());
    expect(await site.read(cookie)).toBe('kept');
    expect((await timed(site.write('lost', cookie))).error).toMatchObject({
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
    expect((await timed(site.write('lost'))).error).toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/no connection left/),
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
