import { setTimeout as pause } from 'node:timers/promises';
import { beforeAll, describe, expect, test } from 'vitest';
import { startProxy } from './support/fault-proxy.ts';
import { createVisitor, type Visitor } from './support/http.ts';
import { startRedis } from './support/redis-server.ts';
import { astros } from './support/scope.ts';
import { buildSite, redisSiteFromVariables, startSite, type Built, type Site } from './support/site.ts';

// Outages of Redis under a running site. The first request fails at its deadline, later ones fail at once, and sessions work again after the
// outage. `pnpm faults` measures the recovery time.

/** A deadline for tests in which it must pass. */
const SHORT_MS = 3000;
/** A deadline for tests in which it must not pass. */
const LONG_MS = 60_000;

describe.each(astros)('a built site on Astro %i', (astro) => {
  let built: Built;

  beforeAll(async () => {
    built = await buildSite(redisSiteFromVariables(astro));
  });

  const start = (port: number, timeoutMs = SHORT_MS): Promise<Site> =>
    startSite(built, {
      env: { REDIS_URL: `redis://127.0.0.1:${port}`, SESSION_TTL: '3600', SESSION_TIMEOUT: String(timeoutMs) },
    });

  /** The error code of a request that reads: `timeout`, or `unavailable` if nothing was sent. The visitor keeps the cookie. */
  const failureOf = async (visitor: Visitor): Promise<unknown> => {
    const { outcomes, status } = await visitor.attempt([['get', 'cart']]);
    expect(status).toBe(200);
    expect(outcomes).toMatchObject([
      {
        error: {
          message: expect.stringMatching(
            /^\[session-redis\] (?:The backend|Cannot connect to Redis at 127\.0\.0\.1:\d+: [^.]+\. Nothing was sent\.)/,
          ),
        },
      },
    ]);
    expect(visitor.sessionId()).toBeDefined();
    const [outcome] = outcomes!;
    return 'error' in outcome! && outcome.error.code;
  };

  const isWell = (visitor: Visitor): Promise<void> =>
    expect
      .poll(() => visitor.attempt([['get', 'cart']]), { interval: 20 })
      .toMatchObject({ outcomes: [{ value: 'hat' }] });

  const isStored = (visitor: Visitor): Promise<void> =>
    expect.poll(() => visitor.attempt([['set', 'cart', 'hat']]), { interval: 20 }).toMatchObject({ status: 200 });

  /** The first request waits until its deadline and fails with the code `first`. Later ones fail at once, except for an occasional probe. */
  const isUnavailable = async (site: Site, visitor: Visitor, first: 'timeout' | 'unavailable'): Promise<void> => {
    expect(await failureOf(visitor)).toBe(first);
    const later = await Promise.all(Array.from({ length: 20 }, () => failureOf(visitor)));
    expect(later.filter((code) => code === 'unavailable').length).toBeGreaterThanOrEqual(19);

    const refusals = () => site.logs().split(/nothing was sent/i).length - 1;
    const before = refusals();
    const writes = await Promise.all(Array.from({ length: 20 }, () => visitor.attempt([['set', 'lost', true]])));
    expect(writes.map(({ status }) => status)).toEqual(writes.map(() => 500));
    await expect.poll(() => refusals() - before).toBeGreaterThanOrEqual(19);
  };

  test('Redis is stopped and started again', async () => {
    await using redis = await startRedis();
    await using site = await start(redis.port);
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'cart', 'hat']]);
    await redis.stop();
    await isUnavailable(site, visitor, 'unavailable');
    await redis.restart();
    await isWell(visitor);
  });

  test('Redis is killed and restarted between requests', async () => {
    await using redis = await startRedis({ args: ['--appendfsync', 'always'] });
    await using site = await start(redis.port, LONG_MS);
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'cart', 'hat']]);
    await redis.kill();
    await redis.restart();
    // The first request already succeeds.
    expect(await visitor.run([['get', 'cart']])).toEqual(['hat']);
  });

  test('a restart that is shorter than the deadline only delays a request', async () => {
    await using redis = await startRedis();
    await using site = await start(redis.port, LONG_MS);
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'cart', 'hat']]);
    await redis.stop();
    const waiting = visitor.run([['get', 'cart']]);
    await redis.restart();
    expect(await waiting).toEqual(['hat']);
  });

  test('Redis is started after the site', async () => {
    await using redis = await startRedis();
    await redis.stop();
    await using site = await start(redis.port);
    const visitor = createVisitor(site.url, [['astro-session', crypto.randomUUID()]]);
    expect(await failureOf(visitor)).toBe('unavailable');
    await redis.restart();
    await isStored(visitor);
    expect(await visitor.run([['get', 'cart']])).toEqual(['hat']);
  });

  test.each(['silence', 'hold'] as const)('Redis accepts connections and never answers: %s', async (mode) => {
    await using redis = await startRedis();
    await using proxy = await startProxy({ target: redis.port });
    await using site = await start(proxy.port);
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'cart', 'hat']]);
    await proxy[mode]();
    await isUnavailable(site, visitor, 'timeout');
    await proxy.pass();
    await isWell(visitor);
  });

  test('Redis never answered, from the first connection on', async () => {
    await using redis = await startRedis();
    await using proxy = await startProxy({ target: redis.port });
    await proxy.silence();
    await using site = await start(proxy.port);
    const visitor = createVisitor(site.url, [['astro-session', crypto.randomUUID()]]);
    await isUnavailable(site, visitor, 'unavailable');
    await proxy.pass();
    await isStored(visitor);
  });

  test('Redis is frozen, and continues', async () => {
    await using redis = await startRedis();
    await using site = await start(redis.port);
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'cart', 'hat']]);
    redis.freeze();
    await isUnavailable(site, visitor, 'timeout');
    redis.thaw();
    await isWell(visitor);
  });

  test('the site is frozen for longer than the deadline: replies that had arrived count', async () => {
    await using redis = await startRedis();
    await using proxy = await startProxy({ target: redis.port });
    await using site = await start(proxy.port);
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'cart', 'hat']]);
    await proxy.delay(300);
    const [sent, answered] = [proxy.bytesFromClients, proxy.bytesToClients];
    const waiting = visitor.run([['get', 'cart']]);
    await expect.poll(() => proxy.bytesFromClients, { interval: 5 }).toBeGreaterThan(sent);
    site.freeze();
    await expect.poll(() => proxy.bytesToClients, { interval: 5 }).toBeGreaterThan(answered);
    // The site measures the deadline itself, so the test must wait.
    await pause(SHORT_MS + 500);
    site.thaw();
    expect(await waiting).toEqual(['hat']);
    expect(await visitor.run([['get', 'cart']])).toEqual(['hat']);
  });

  test('a failed write is never sent later', async () => {
    await using redis = await startRedis();
    await using site = await start(redis.port);
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'cart', 'hat']]);
    await redis.stop();
    const attempts = await Promise.all(
      Array.from({ length: 20 }, (_, index) => visitor.fork().attempt([['set', `late${index}`, true]])),
    );
    expect(attempts.map(({ status }) => status)).toEqual(attempts.map(() => 500));
    await redis.restart();
    await isWell(visitor);
    await visitor.run([['set', 'after', true]]);
    expect(await visitor.run([['keys']])).toEqual([['cart', 'after']]);
  });
});
