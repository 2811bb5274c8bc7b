import { beforeAll, describe, expect, test } from 'vitest';
import { startProxy, type FaultProxy } from './support/fault-proxy.ts';
import { createVisitor, type Visitor } from './support/http.ts';
import { startRedis, type RedisServer } from './support/redis-server.ts';
import { buildSite, redisSite, startSite, type Built, type Site } from './support/site.ts';

// Concurrent requests on one session, in a real site, with random delays of Redis's replies. With the same harness, Astro's own Redis driver
// loses most updates (`harness.test.ts`).

const names = Array.from({ length: 64 }, (_, index) => `key${index}`);

describe.each([7, 6] as const)('a built site on Astro %i', (astro) => {
  let built: Built;
  let redis: RedisServer;
  let proxy: FaultProxy;
  let site: Site;

  beforeAll(async () => {
    built = await buildSite(redisSite(astro));
    redis = await startRedis();
    proxy = await startProxy({ target: redis.port });
    site = await startSite(built, { env: { REDIS_URL: `redis://127.0.0.1:${proxy.port}` } });
    await proxy.delay(() => Math.random() * 20);
    return async () => {
      await site[Symbol.asyncDispose]();
      await proxy[Symbol.asyncDispose]();
      await redis[Symbol.asyncDispose]();
    };
  });

  const visit = async (...steps: Parameters<Visitor['run']>[0]): Promise<Visitor> => {
    const visitor = createVisitor(site.url);
    await visitor.run(steps);
    return visitor;
  };

  const contents = async (visitor: Visitor): Promise<Record<string, unknown>> => {
    const [entries] = await visitor.run([['entries']]);
    return Object.fromEntries(entries as [string, unknown][]);
  };

  test('64 concurrent requests that set 64 keys lose no updates, ten times in a row', async () => {
    for (let round = 0; round < 10; round++) {
      const visitor = await visit(['set', 'seed', round]);
      await Promise.all(names.map((name, index) => visitor.fork().run([['set', name, index]])));
      expect(await contents(visitor)).toEqual({
        seed: round,
        ...Object.fromEntries(names.map((name, index) => [name, index])),
      });
    }
  });

  test('concurrent sets and deletes of different keys all take effect', async () => {
    const visitor = await visit(...names.map((name): ['set', string, unknown] => ['set', name, 'before']));
    await Promise.all(
      names.map((name, index) => {
        const request = visitor.fork();
        if (index % 3 === 0)
          return request.run([
            ['get', name],
            ['jitter', 20],
            ['delete', name],
          ]);
        if (index % 3 === 1)
          return request.run([
            ['get', name],
            ['jitter', 20],
            ['set', name, 'after'],
          ]);
        return request.run([['set', `new-${name}`, index]]);
      }),
    );
    const expected: Record<string, unknown> = {};
    names.forEach((name, index) => {
      if (index % 3 === 1) expected[name] = 'after';
      if (index % 3 === 2) Object.assign(expected, { [name]: 'before', [`new-${name}`]: index });
    });
    expect(await contents(visitor)).toEqual(expected);
  });

  test('requests that rewrite every key keep the keys that others add, and delete their own', async () => {
    const visitor = await visit(['set', 'a', 0], ['set', 'b', 0], ['set', 'flash', 'once']);
    await Promise.all(
      names.map((name, index) =>
        visitor.fork().run(
          index % 2
            ? [['set', name, index]]
            : [
                ['get', 'a'],
                ['jitter', 20],
                ['set', 'a', index],
                ['set', 'b', index],
                ['delete', 'flash'],
              ],
        ),
      ),
    );
    const kept = await contents(visitor);
    expect(Object.keys(kept).toSorted()).toEqual(['a', 'b', ...names.filter((_, index) => index % 2)].toSorted());
  });

  test('late requests do not restore a session after the sign-out', async () => {
    const visitor = await visit(['set', 'user', 'ada']);
    const gate = site.gate(`sign-out-${astro}`);
    const late = Array.from({ length: 8 }, (_, index) =>
      visitor.fork().attempt([
        ['get', 'user'],
        ['wait', `sign-out-${astro}`],
        ['set', `late${index}`, true],
      ]),
    );
    await gate.arrived(8);
    const signedIn = visitor.fork();
    await visitor.run([['destroy']]);
    await gate.open();
    for (const { status } of await Promise.all(late)) expect(status).toBe(200);
    expect(await contents(signedIn)).toEqual({});
    // A later request with the old cookie does not restore it either.
    const again = signedIn.fork();
    await again.run([['set', 'later', 1]]);
    expect(again.sessionId()).not.toBe(signedIn.sessionId());
    expect(await contents(signedIn)).toEqual({});
  });

  test('late requests do not restore the old session after `regenerate()`', async () => {
    const visitor = await visit(['set', 'user', 'ada']);
    const old = visitor.fork();
    const gate = site.gate(`regenerate-${astro}`);
    const late = old.fork().attempt([
      ['get', 'user'],
      ['wait', `regenerate-${astro}`],
      ['set', 'late', true],
    ]);
    await gate.arrived();
    await visitor.run([['regenerate'], ['set', 'role', 'admin']]);
    await gate.open();
    expect((await late).status).toBe(200);
    expect(await contents(old)).toEqual({});
    expect(await contents(visitor)).toEqual({ user: 'ada', role: 'admin' });
  });

  test('a cart update during `regenerate()` is in the new session', async () => {
    for (let round = 0; round < 10; round++) {
      const visitor = await visit(['set', 'cart:hat', 1], ['set', 'gone', 1]);
      const name = `during-${astro}-${round}`;
      const gate = site.gate(name);
      const signIn = visitor.run([['get', 'cart:hat'], ['wait', name], ['regenerate'], ['set', 'user', 'ada']]);
      await gate.arrived();
      await visitor.fork().run([
        ['set', 'cart:coat', 1],
        ['set', 'cart:hat', 2],
        ['delete', 'gone'],
      ]);
      await gate.open();
      await signIn;
      expect(await contents(visitor)).toEqual({ 'cart:hat': 2, 'cart:coat': 1, user: 'ada' });
    }
  });
});
