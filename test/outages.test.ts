import { beforeAll, describe, expect, test } from 'vitest';
import { startProxy } from './support/fault-proxy.ts';
import { createVisitor, type Visitor } from './support/http.ts';
import { startRedis } from './support/redis-server.ts';
import { buildSite, startSite, type Built, type Site } from './support/site.ts';

// Redis goes and comes back under a running site. Every request is answered within the deadline plus half a second, later ones at once,
// and sessions work again within a second of Redis's return.

const DEADLINE_MS = 1500;
const SLACK_MS = 500;

describe.each([7, 6] as const)('a built site on Astro %i', { timeout: 60_000 }, (astro) => {
  let built: Built;

  beforeAll(async () => {
    const driver = `redisDriver({ ttl: fromEnv('SESSION_TTL'), timeout: fromEnv('SESSION_TIMEOUT') })`;
    built = await buildSite({ astro, driver });
  }, 200_000);

  const start = (port: number): Promise<Site> =>
    startSite(built, {
      env: { REDIS_URL: `redis://127.0.0.1:${port}`, SESSION_TTL: '3600', SESSION_TIMEOUT: String(DEADLINE_MS) },
    });

  const fails = async (visitor: Visitor, withinMs: number): Promise<void> => {
    const { outcomes, status, ms } = await visitor.attempt([['get', 'cart']]);
    expect(status).toBe(200);
    expect(outcomes).toMatchObject([{ error: { message: expect.stringMatching(/^\[session-redis\] The backend /) } }]);
    expect(ms).toBeLessThan(withinMs);
    expect(visitor.sessionId()).toBeDefined();
  };

  const isWellWithin = async (visitor: Visitor, ms: number): Promise<void> => {
    await expect
      .poll(() => visitor.attempt([['get', 'cart']]), { timeout: ms, interval: 20 })
      .toMatchObject({ outcomes: [{ value: 'hat' }] });
  };

  const isUnavailable = async (visitor: Visitor): Promise<void> => {
    await fails(visitor, DEADLINE_MS + SLACK_MS);
    for (let round = 0; round < 5; round++) await fails(visitor, 250);
    const together = await Promise.all(Array.from({ length: 20 }, () => visitor.attempt([['set', 'cart', 'lost']])));
    for (const { status, ms } of together) {
      expect(status).toBe(500);
      expect(ms).toBeLessThan(SLACK_MS);
    }
  };

  test('Redis is stopped and started again', async () => {
    await using redis = await startRedis();
    await using site = await start(redis.port);
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'cart', 'hat']]);
    await redis.stop();
    await isUnavailable(visitor);
    await redis.restart();
    await isWellWithin(visitor, 1000);
  });

  test('Redis is killed and restarted while nobody visits', async () => {
    await using redis = await startRedis({ args: ['--appendfsync', 'always'] });
    await using site = await start(redis.port);
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'cart', 'hat']]);
    await redis.kill();
    await redis.restart();
    // The first request already finds it; nobody has to try twice.
    expect(await visitor.run([['get', 'cart']])).toEqual(['hat']);
  });

  test('a restart that is shorter than the deadline is only a slow request', async () => {
    await using redis = await startRedis();
    await using site = await start(redis.port);
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
    await fails(visitor, DEADLINE_MS + SLACK_MS);
    await redis.restart();
    await expect
      .poll(() => visitor.attempt([['set', 'cart', 'hat']]), { timeout: 1000, interval: 20 })
      .toMatchObject({ status: 200 });
    expect(await visitor.run([['get', 'cart']])).toEqual(['hat']);
  });

  test.each(['silence', 'hold'] as const)('Redis accepts and never answers: %s', async (mode) => {
    await using redis = await startRedis();
    await using proxy = await startProxy({ target: redis.port });
    await using site = await start(proxy.port);
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'cart', 'hat']]);
    await proxy[mode]();
    await isUnavailable(visitor);
    await proxy.pass();
    await isWellWithin(visitor, 1000);
  });

  test('Redis never answered, from the first connection on', async () => {
    await using redis = await startRedis();
    await using proxy = await startProxy({ target: redis.port });
    await proxy.silence();
    await using site = await start(proxy.port);
    const visitor = createVisitor(site.url, [['astro-session', crypto.randomUUID()]]);
    await isUnavailable(visitor);
    await proxy.pass();
    await expect
      .poll(() => visitor.attempt([['set', 'cart', 'hat']]), { timeout: 1000, interval: 20 })
      .toMatchObject({ status: 200 });
  });

  test('Redis is frozen, and goes on', async () => {
    await using redis = await startRedis();
    await using site = await start(redis.port);
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'cart', 'hat']]);
    redis.freeze();
    await isUnavailable(visitor);
    redis.thaw();
    await expect
      .poll(() => visitor.attempt([['get', 'cart']]), { timeout: 1000, interval: 20 })
      .toMatchObject({
        // A write that was on its way when its request was told of the failure may have been stored.
        outcomes: [{ value: expect.stringMatching(/hat|lost/) }],
      });
  });

  test('the process of the site is frozen for three seconds, longer than the deadline: what had been answered counts', async () => {
    await using redis = await startRedis();
    await using proxy = await startProxy({ target: redis.port });
    await using site = await start(proxy.port);
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'cart', 'hat']]);
    await proxy.delay(300);
    const waiting = visitor.run([['get', 'cart']]);
    const sent = proxy.bytesFromClients;
    await expect.poll(() => proxy.bytesFromClients, { interval: 5 }).toBeGreaterThan(sent);
    site.freeze();
    const thawAt = Date.now() + 3000;
    await expect.poll(() => Date.now(), { timeout: 5000, interval: 50 }).toBeGreaterThan(thawAt);
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
    await isWellWithin(visitor, 1000);
    await visitor.run([['set', 'after', true]]);
    expect(await visitor.run([['keys']])).toEqual([['cart', 'after']]);
  });
});
