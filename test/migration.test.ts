import { recordKey } from '@coatcheck/session-core/driver';
import { Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createVisitor, type Visitor } from './support/http.ts';
import { places, storedInRedis, type Place, type Shop } from './support/migration.ts';
import { startRedis, type RedisServer } from './support/redis-server.ts';
import { scopeOf } from './support/scope.ts';
import { buildSite, redisSite, startSite, type Built } from './support/site.ts';

// Migration of a site: the server with Astro's own driver is stopped, the one with ours is started, and browsers keep their cookies.

const cartOf = (name: string): Map<string, bigint> => new Map([[`hat-of-${name}`, 2n]]);

/** A browser whose user has filled a cart and then signed in. */
async function customer(shop: Shop, name: string): Promise<Visitor> {
  const visitor = createVisitor(shop.url);
  await visitor.run([['set', 'cart', cartOf(name)]]);
  await visitor.run([['regenerate'], ['set', 'user', name], ['set', 'flash', `Welcome, ${name}`]]);
  return visitor;
}

async function expectSignedIn(visitor: Visitor, name: string): Promise<void> {
  expect(
    await visitor.run([
      ['get', 'user'],
      ['get', 'cart'],
    ]),
  ).toEqual([name, cartOf(name)]);
}

/** Whether the backend has Astro's own record of a session, our record, and any data of its user. */
async function traces(
  place: Place,
  id: string,
  name: string,
): Promise<{ theirs: boolean; ours: boolean; user: boolean }> {
  const stored = await place.stored();
  const names = [...stored.keys()];
  const key = await recordKey(id, '');
  return {
    theirs: names.some((it) => it.includes(id)),
    ours: names.some((it) => it.includes(key)),
    user: [...stored.values()].some((it) => it.includes(`hat-of-${name}`)),
  };
}

// Astro's own drivers are unstorage drivers. The conformance tests of each backend also migrate from them.
describe.each(scopeOf(Object.entries(places), ['Redis']))(
  "migrating from Astro's own driver to ours: %s",
  (_backend, arrange) => {
    const calm = ['ada', 'grace', 'edsger'] as const;
    const hurried = ['barbara', 'frances', 'niklaus', 'adele', 'dennis', 'sophie'] as const;
    const names = [...calm, ...hurried, 'ken', 'radia', 'donald', 'margaret', 'absent'] as const;
    const visitors = {} as Record<(typeof names)[number], Visitor>;
    let place: Place;
    let shop: Shop;

    const at = (name: keyof typeof visitors, where = shop): Visitor => visitors[name].fork(where.url);

    beforeAll(async () => {
      place = await arrange();
      await using before = await place.before();
      await Promise.all(names.map(async (name) => (visitors[name] = await customer(before, name))));
    });
    beforeAll(async () => {
      shop = await place.after(true);
    });
    afterAll(async () => {
      await shop?.[Symbol.asyncDispose]();
      await place?.[Symbol.asyncDispose]();
    });

    test('a session stays in its old place until its first request', async () => {
      for (const name of names) {
        const id = visitors[name].sessionId()!;
        expect(await traces(place, id, name)).toEqual({ theirs: true, ours: false, user: true });
      }
    });

    test('all users are still signed in, with their cart and their flash message', async () => {
      for (const name of calm) {
        const visitor = at(name);
        const id = visitor.sessionId()!;
        expect((await visitor.fetch('/flash')).body).toContain(`Welcome, ${name}`);
        expect((await visitor.fetch('/flash')).body).toContain('Nothing new');
        await expectSignedIn(visitor, name);
        expect(visitor.sessionId()).toBe(id);
        expect(await traces(place, id, name)).toEqual({ theirs: false, ours: true, user: true });
      }
    });

    test('eight concurrent first requests lose nothing, on two servers if the backend allows it', async () => {
      await using other = place.atomic ? await place.after(true) : undefined;
      const things = Array.from({ length: 8 }, (_, index) => `thing${index}`);
      for (const name of hurried) {
        const answers = await Promise.all(
          things.map((thing, index) =>
            at(name, index % 2 ? other : shop).run([
              ['get', 'user'],
              ['set', thing, index],
            ]),
          ),
        );
        expect(answers.map(([user]) => user)).toEqual(things.map(() => name));
        const [keys] = await at(name).run([['keys']]);
        expect(new Set(keys as string[])).toEqual(new Set(['cart', 'user', 'flash', ...things]));
        await expectSignedIn(at(name), name);
        expect(await traces(place, visitors[name].sessionId()!, name)).toEqual({
          theirs: false,
          ours: true,
          user: true,
        });
      }
    });

    test('a user whose first request is a sign-out stays signed out', async () => {
      const leaving = at('ken');
      const id = leaving.sessionId()!;
      await leaving.run([['destroy']]);
      expect(leaving.sessionId()).toBeUndefined();
      for (let again = 0; again < 2; again++) expect(await at('ken').run([['keys']])).toEqual([[]]);
      expect(await traces(place, id, 'ken')).toMatchObject({ theirs: false, user: false });
    });

    test('a user who signs out during the first requests of other tabs stays signed out', async () => {
      const id = visitors.radia.sessionId()!;
      await Promise.all([
        ...Array.from({ length: 4 }, (_, index) =>
          at('radia').run([
            ['get', 'user'],
            ['set', `tab${index}`, true],
          ]),
        ),
        at('radia').run([['destroy']]),
        at('radia').run([['get', 'cart']]),
      ]);
      for (let again = 0; again < 2; again++) expect(await at('radia').run([['keys']])).toEqual([[]]);
      expect(await traces(place, id, 'radia')).toMatchObject({ theirs: false, user: false });
    });

    test('a user whose first request regenerates the session keeps everything', async () => {
      const visitor = at('donald');
      const id = visitor.sessionId()!;
      await visitor.run([['regenerate'], ['set', 'role', 'editor']]);
      expect(visitor.sessionId()).not.toBe(id);
      await expectSignedIn(visitor, 'donald');
      expect(await at('donald').run([['keys']])).toEqual([[]]);
      expect(await traces(place, id, 'donald')).toMatchObject({ theirs: false, user: true });
    });

    test('after the end of `migrateFrom`, migrated users are still signed in', async () => {
      await expectSignedIn(at('margaret'), 'margaret');
      await shop[Symbol.asyncDispose]();
      shop = await place.after(false);
      for (const name of [...calm, ...hurried, 'margaret'] as const) {
        await expectSignedIn(at(name), name);
      }
      for (const name of ['ken', 'radia', 'absent'] as const) {
        expect(await at(name).run([['keys']])).toEqual([[]]);
      }
    });
  },
);

describe('changing our own configuration, on Redis', () => {
  const [first, next] = ['first-secret-of-the-shop-0123456789', 'next-secret-of-the-shop-9876543210'];
  let server: RedisServer;
  let redis: Redis;

  beforeAll(async () => {
    server = await startRedis();
    redis = new Redis(server.url);
  });
  afterAll(async () => {
    redis?.disconnect();
    await server?.[Symbol.asyncDispose]();
  });

  test('enabling encryption, rotating secrets twice, and changing the prefix sign nobody out', async () => {
    const plaintext = await buildSite(redisSite(7));
    const migrateFrom = `{ until: fromEnv('MIGRATE_UNTIL'), prefix: 'session:' }`;
    const encrypting = await buildSite({
      astro: 7,
      driver: `redisDriver({ prefix: fromEnv('PREFIX'), secrets: fromEnv('SECRETS'), migrateFrom: ${migrateFrom} })`,
    });
    const [within, over] = [{ MIGRATE_UNTIL: '2100-01-01' }, { MIGRATE_UNTIL: '2000-01-01' }];
    const deployments: [built: Built, env: Record<string, string>][] = [
      [plaintext, {}],
      [encrypting, { PREFIX: 'session:', SECRETS: first, ...within }],
      [encrypting, { PREFIX: 'session:', SECRETS: `${next},${first}`, ...within }],
      [encrypting, { PREFIX: 'session:', SECRETS: next, ...over }],
      [encrypting, { PREFIX: 'new:', SECRETS: next, ...within }],
    ];

    const names = ['ada-lovelace', 'grace-hopper', 'barbara-liskov', 'radia-perlman', 'margaret-hamilton'];
    const customers = new Map<string, Visitor>();
    for (const [index, [built, env]] of deployments.entries()) {
      await using site = await startSite(built, { env: { REDIS_URL: server.url, ...env } });
      // Some visits only read, and some also write.
      for (const [name, visitor] of customers) {
        const now = visitor.fork(site.url);
        await Promise.all(Array.from({ length: 4 }, () => expectSignedIn(now.fork(), name)));
        if (name !== names[0]) await now.run([['set', 'deployment', index]]);
      }
      customers.set(names[index]!, await customer(site, names[index]!));
      const stored = [...(await storedInRedis(redis))].flat().join('\n');
      for (const [name, visitor] of customers) {
        expect(stored).not.toContain(visitor.sessionId());
        for (const text of [name, `hat-of-${name}`, '"cart"', '"user"', '"flash"']) {
          expect(stored.includes(text), `deployment ${index} shows ${text}`).toBe(built === plaintext);
        }
      }
    }
    // Only tombstones are left under the old prefix, and they expire.
    const left = await redis.keys('session:*');
    expect(left.length).toBeGreaterThan(0);
    for (const key of left) {
      expect(await redis.hkeys(key)).toEqual(['']);
      expect(await redis.pttl(key)).toBeGreaterThan(0);
      expect(await redis.pttl(key)).toBeLessThanOrEqual(60_000);
    }
  });
});
