import { recordKey } from '@coatcheck/session-core/driver';
import { Redis } from 'ioredis';
import { beforeAll, describe, expect, test } from 'vitest';
import { createVisitor, type Visitor } from './support/http.ts';
import { startRedis, type RedisServer } from './support/redis-server.ts';
import { astros } from './support/scope.ts';
import {
  buildSite,
  redisSite,
  redisSiteFromVariables,
  startSite,
  type SiteSpec,
  type StartOptions,
} from './support/site.ts';

// Redis itself is asked how long a session lives.

const DAY = 86_400;

let redis: RedisServer;
let client: Redis;

beforeAll(async () => {
  redis = await startRedis();
  client = new Redis(redis.url);
  return async () => {
    client.disconnect();
    await redis[Symbol.asyncDispose]();
  };
});

const start = async (spec: SiteSpec, options: StartOptions = {}) =>
  startSite(await buildSite(spec), { ...options, env: { REDIS_URL: redis.url, ...options.env } });

const secondsLeft = async (visitor: Visitor): Promise<number> =>
  (await client.pttl(await recordKey(visitor.sessionId()!))) / 1000;

/** Matches a lifetime that was set recently. The range is wide for slow machines, but matches no other lifetime of these tests. */
const about = (seconds: number) => ({
  asymmetricMatch: (actual: unknown) => typeof actual === 'number' && actual <= seconds && actual > seconds / 2,
  toString: () => 'about',
});

describe.each(astros)('`session.ttl` in a built site on Astro %i', (astro) => {
  const spec: SiteSpec = { astro, driver: 'redisDriver()', session: { ttl: 1000 } };

  test.each([
    ['a correct clock', 0],
    ['a clock two hours behind', -7_200_000],
    ['a clock two hours ahead', 7_200_000],
  ])('alone sets the lifetime of the Redis key, in an app with %s', async (_name, clockOffsetMs) => {
    await using site = await start(spec, { clockOffsetMs });
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'a', 1]]);
    expect(await secondsLeft(visitor)).toEqual(about(1000));
    await visitor.run([['set', 'b', 1, { ttl: 400 }]]);
    expect(await secondsLeft(visitor)).toEqual(about(1000));
    await visitor.run([['set', 'c', 1, { ttl: 5000 }]]);
    expect(await secondsLeft(visitor)).toEqual(about(5000));
    expect(await visitor.run([['keys']])).toEqual([['a', 'b', 'c']]);
    await visitor.run([['delete', 'c']]);
    expect(await secondsLeft(visitor)).toEqual(about(1000));
  });
});

describe('the driver on Astro 7', () => {
  const withTtl = (ttl: string) =>
    start(redisSiteFromVariables(7), { env: { SESSION_TTL: ttl, SESSION_TIMEOUT: '60000' } });

  test('keeps a session without any ttl for 30 days after its last write', async () => {
    await using site = await start(redisSite(7));
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'a', 1]]);
    expect(await secondsLeft(visitor)).toEqual(about(30 * DAY));
    await client.pexpire(await recordKey(visitor.sessionId()!), 1_000_000);
    await visitor.run([
      ['get', 'a'],
      ['set', 'b', 1, { ttl: 10 }],
    ]);
    expect(await secondsLeft(visitor)).toEqual(about(30 * DAY));
  });

  test('`ttl` changes that', async () => {
    await using site = await withTtl('3600');
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'a', 1]]);
    expect(await secondsLeft(visitor)).toEqual(about(3600));
  });

  test('`ttl: false` keeps such a session forever, and a later `ttl` gives it an expiry', async () => {
    await using forEver = await withTtl('false');
    const visitor = createVisitor(forEver.url);
    await visitor.run([['set', 'a', 1]]);
    expect(await client.pttl(await recordKey(visitor.sessionId()!))).toBe(-1);
    await using ending = await withTtl('3600');
    await visitor.fork(ending.url).run([['set', 'b', 1]]);
    expect(await secondsLeft(visitor)).toEqual(about(3600));
  });

  test('after its ttl, the session is removed from Redis', async () => {
    await using site = await withTtl('1');
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'a', 1]]);
    expect(visitor.sessionId()).toBeDefined();
    const key = await recordKey(visitor.sessionId()!);
    await expect.poll(() => client.exists(key)).toBe(0);
    expect(await visitor.run([['get', 'a']])).toEqual([undefined]);
  });

  test('`idleTtl`: reads extend a session, and it expires without them', async () => {
    await using site = await start({ astro: 7, driver: 'redisDriver({ idleTtl: 1000 })' });
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'a', 1]]);
    const key = await recordKey(visitor.sessionId()!);
    expect(await secondsLeft(visitor)).toEqual(about(1000));
    // Instead of waiting, shorten the lifetime in Redis as if the session had been idle.
    await client.pexpire(key, 100_000);
    expect(await visitor.run([['get', 'a']])).toEqual([1]);
    expect(await secondsLeft(visitor)).toEqual(about(1000));
    await client.pexpire(key, 1);
    await expect.poll(() => client.exists(key)).toBe(0);
    expect(await visitor.run([['get', 'a']])).toEqual([undefined]);
  });
});
