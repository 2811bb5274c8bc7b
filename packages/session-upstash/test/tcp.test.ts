import { createSessions, type SessionDriver } from '@coatcheck/session-core';
import redis from '@coatcheck/session-redis/runtime';
import upstash from '@coatcheck/session-upstash/runtime';
import { parse, stringify } from 'devalue';
import { afterAll, describe, expect, it } from 'vitest';
import { redisUrl } from '@coatcheck/test-support/redis-server';
import { startUpstashBridge } from '@coatcheck/test-support/upstash-bridge';

// A site over TCP and an edge function over REST can share sessions.

const url = await redisUrl();
const bridge = await startUpstashBridge(url);
afterAll(() => bridge[Symbol.asyncDispose]());

// Long enough for a busy machine.
const timeout = 100_000;
const overTcp = redis({ url, timeout });
const overRest = upstash({ url: bridge.url, token: bridge.token, timeout });

const everyType = {
  text: 'Ünal 🧥 "quoted" \u0000\u2028',
  big: 9_007_199_254_740_993n,
  at: new Date(0),
  set: new Set([1, [2]]),
  map: new Map<unknown, unknown>([[{ a: 1 }, undefined]]),
  bytes: new Uint8Array([0, 255]),
  odd: [-0, Number.NaN, Infinity],
  link: new URL('https://example.org/?a=1'),
};

const day = Date.now() + 86_400_000;
const entries = (data: object) =>
  new Map(Object.entries(data).map(([key, value]) => [key, { data: value as unknown, expires: day }]));

type Astro = Map<string, { data: unknown; expires: number }>;
const revivers = { URL: (href: unknown) => new URL(href as string) };
const reducers = { URL: (value: unknown) => value instanceof URL && value.href };

async function readAsAstro(driver: SessionDriver, id: string): Promise<Astro> {
  return parse(JSON.stringify(await driver.getItem(id)), revivers) as Astro;
}

const directions: [string, SessionDriver, SessionDriver][] = [
  ['from TCP to REST', overTcp, overRest],
  ['from REST to TCP', overRest, overTcp],
];

describe.each(directions)('%s', (_, one, other) => {
  it('a session that Astro stored can be read', async () => {
    const id = crypto.randomUUID();
    await one.setItem(id, stringify(entries(everyType), reducers));
    const read = await readAsAstro(other, id);
    expect(Object.fromEntries([...read].map(([key, { data }]) => [key, data]))).toEqual(everyType);
  });

  it('a session that `Session` stored can be read and changed', async () => {
    const [here, there] = [createSessions({ driver: one }), createSessions({ driver: other })];
    const session = here.open('');
    session.set('cart', { hat: 1 });
    session.set('user', 'ada');
    const cookie = (await session.commit())!.split(';')[0]!;
    const second = there.open(cookie);
    expect(await second.get('cart')).toEqual({ hat: 1 });
    second.set('cart', { hat: 2 });
    second.delete('user');
    await second.commit();
    const third = here.open(cookie);
    expect(await third.get('cart')).toEqual({ hat: 2 });
    expect(await third.has('user')).toBe(false);
  });

  it('unchanged values are not written by the other side', async () => {
    const id = crypto.randomUUID();
    await one.setItem(id, stringify(entries(everyType), reducers));
    const read = await readAsAstro(other, id);
    // In the meantime, the first side changes a key that the other one has only read.
    await one.setItem(id, stringify((await readAsAstro(one, id)).set('text', { data: 'new', expires: day }), reducers));
    await other.setItem(id, stringify(read.set('own', { data: 1, expires: day }), reducers));
    const after = await readAsAstro(one, id);
    expect([after.get('text')!.data, after.get('own')!.data]).toEqual(['new', 1]);
  });

  it('a session that one side destroyed stays destroyed on the other', async () => {
    const id = crypto.randomUUID();
    await one.setItem(id, stringify(entries({ user: 'ada' })));
    const read = await readAsAstro(other, id);
    await one.removeItem(id);
    await other.setItem(id, stringify(read.set('late', { data: 1, expires: day })));
    expect(await other.getItem(id)).toBeNull();
    expect(await one.getItem(id)).toBeNull();
  });
});

it('64 writers, half of them over REST, lose no updates', async () => {
  const sides = [createSessions({ driver: overTcp }), createSessions({ driver: overRest })];
  const first = sides[0]!.open('');
  first.set('count', 0);
  const cookie = (await first.commit())!.split(';')[0]!;
  await Promise.all(
    Array.from({ length: 64 }, async (_, index) => {
      const session = sides[index % 2]!.open(cookie);
      session.set(`key${index}`, index);
      await session.update('count', (count) => (count as number) + 1);
      await session.commit();
    }),
  );
  for (const side of sides) {
    const session = side.open(cookie);
    expect([...(await session.keys())]).toHaveLength(65);
    expect(await session.get('count')).toBe(64);
  }
});

it('a sign-out on either side is final despite writers on both', async () => {
  for (let round = 0; round < 20; round++) {
    const id = crypto.randomUUID();
    await overTcp.setItem(id, stringify(entries({ user: 'ada' })));
    const sides = [overTcp, overRest];
    const reads = await Promise.all(Array.from({ length: 16 }, (_, index) => readAsAstro(sides[index % 2]!, id)));
    await Promise.all([
      ...reads.map((read, index) =>
        sides[index % 2]!.setItem(id, stringify(read.set(`late${index}`, { data: 1, expires: day }))),
      ),
      sides[round % 2]!.removeItem(id),
    ]);
    expect(await overRest.getItem(id)).toBeNull();
    expect(await overTcp.getItem(id)).toBeNull();
  }
});

it('two sites with different prefixes never see each other, over TCP or REST', async () => {
  const id = crypto.randomUUID();
  const shop = upstash({ url: bridge.url, token: bridge.token, prefix: 'shop:' });
  const blog = redis({ url, prefix: 'blog:' });
  await shop.setItem(id, stringify(entries({ site: 'shop' })));
  expect(await blog.getItem(id)).toBeNull();
  await blog.setItem(id, stringify(entries({ site: 'blog' })));
  await blog.removeItem(id);
  expect((await readAsAstro(shop, id)).get('site')!.data).toBe('shop');
  expect(await overRest.getItem(id)).toBeNull();
});
