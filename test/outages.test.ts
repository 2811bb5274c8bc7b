import { setTimeout as pause } from 'node:timers/promises';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { startProxy } from './support/fault-proxy.ts';
import { createVisitor, type Visitor } from './support/http.ts';
import { startRedis } from './support/redis-server.ts';
import { astros } from './support/scope.ts';
import { buildSite, redisSiteFromVariables, startSite, type Built, type Site } from './support/site.ts';

// Redis goes and comes back under a running site. The first request is answered at its deadline, later ones without waiting, and sessions
// work again after Redis's return. How many milliseconds that takes is measured by `pnpm faults`.

/** For tests in which it passes. */
const SHORT_MS = 3000;
/** For tests in which it must not. */
const LONG_MS = 60_000;

describe.concurrent.each(astros)('a built site on Astro %i', (astro) => {
  let built: Built;

  beforeAll(async () => {
    built = await buildSite(redisSiteFromVariables(astro));
  });

  const start = (port: number, timeoutMs = SHORT_MS): Promise<Site> =>
    startSite(built, {
      env: { REDIS_URL: `redis://127.0.0.1:${port}`, SESSION_TTL: '3600', SESSION_TIMEOUT: String(timeoutMs) },
    });

  /** What a request that reads is told: that it has waited, or that nothing was sent for it. The visitor stays signed in. */
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

  // Not `expect.poll`, which does not know to which of the tests that run at once it belongs.
  const eventually = (assertion: () => unknown): Promise<unknown> =>
    vi.waitFor(assertion, { interval: 20, timeout: 60_000 });

  const isWell = (visitor: Visitor): Promise<unknown> =>
    eventually(async () =>
      expect(await visitor.attempt([['get', 'cart']])).toMatchObject({ outcomes: [{ value: 'hat' }] }),
    );

  const isStored = (visitor: Visitor): Promise<unknown> =>
    eventually(async () => expect(await visitor.attempt([['set', 'cart', 'hat']])).toMatchObject({ status: 200 }));

  /** One request waits until its deadline, and gets the code `first`. Nobody waits after it, but one now and then may try for the others. */
  const isUnavailable = async (site: Site, visitor: Visitor, first: 'timeout' | 'unavailable'): Promise<void> => {
    expect(await failureOf(visitor)).toBe(first);
    const later = await Promise.all(Array.from({ length: 20 }, () => failureOf(visitor)));
    expect(later.filter((code) => code === 'unavailable').length).toBeGreaterThanOrEqual(19);

    const refusals = () => site.logs().split(/nothing was sent/i).length - 1;
    const before = refusals();
    const writes = await Promise.all(Array.from({ length: 20 }, () => visitor.attempt([['set', 'lost', true]])));
    expect(writes.map(({ status }) => status)).toEqual(writes.map(() => 500));
    await eventually(() => expect(refusals() - before).toBeGreaterThanOrEqual(19));
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

  test('Redis is killed and restarted while nobody visits', async () => {
    await using redis = await startRedis({ args: ['--appendfsync', 'always'] });
    await using site = await start(redis.port, LONG_MS);
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'cart', 'hat']]);
    await redis.kill();
    await redis.restart();
    // The first request already finds it; nobody has to try twice.
    expect(await visitor.run([['get', 'cart']])).toEqual(['hat']);
  });

  test('a restart that is shorter than the deadline is only a slow request', async () => {
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

  test.each(['silence', 'hold'] as const)('Redis accepts and never answers: %s', async (mode) => {
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

  test('Redis is frozen, and goes on', async () => {
    await using redis = await startRedis();
    await using site = await start(redis.port);
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'cart', 'hat']]);
    redis.freeze();
    await isUnavailable(site, visitor, 'timeout');
    redis.thaw();
    await isWell(visitor);
  });

  test('the process of the site is frozen for longer than the deadline: what had been answered counts', async () => {
    await using redis = await startRedis();
    await using proxy = await startProxy({ target: redis.port });
    await using site = await start(proxy.port);
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'cart', 'hat']]);
    await proxy.delay(300);
    const [sent, answered] = [proxy.bytesFromClients, proxy.bytesToClients];
    const waiting = visitor.run([['get', 'cart']]);
    await eventually(() => expect(proxy.bytesFromClients).toBeGreaterThan(sent));
    site.freeze();
    await eventually(() => expect(proxy.bytesToClients).toBeGreaterThan(answered));
    // The deadline is measured by the site's own process: nothing but waiting lets it pass.
    await pause(SHORT_MS + 500);
    site.thaw();
    expect(await waiting).toEqual(['hat']);
    expect(await visitor.run([['get', 'cart']])).toEqual(['hat']);
  });

  test('a write whose request was told that it failed is never sent later', async () => {
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
