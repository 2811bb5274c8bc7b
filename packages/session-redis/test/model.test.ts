import { applyChange, endOf, type Change, type Fields, type StoredRecord } from '@coatcheck/session-core';
import { afterAll, expect, it } from 'vitest';
import { redisUrl } from '../../../test/support/redis-server.ts';
import { call, newKey, openInspector, openStore } from './support/store.ts';

const url = await redisUrl();
const store = openStore({ url });
const inspector = openInspector(url);
afterAll(async () => {
  await store.close?.();
  inspector.disconnect();
});

const PROGRAMS = 400;
const STEPS = 25;
const HOUR = 3_600_000;

const NAMES = ['cart', 'user', 'flash', '__proto__', 'é 🧥', '\u0000'];
const BODIES = ['1', '["a"]', '"x:y"', '["\u0000 🧥"]', 'x'.repeat(300)];
/** What a field has left to live. Nothing lies so near that it could pass while a program runs. */
const LIVES = [undefined, undefined, HOUR, 2 * HOUR, 3 * HOUR, 40 * HOUR, -HOUR];
const CAPS = [undefined, HOUR, HOUR, 5 * HOUR, 0];
const IDLES = [undefined, undefined, HOUR / 2, 10 * HOUR, 0];
/** An app's clock may be wrong; of one app it is wrong by the same in every request. */
const SKEWS = [0, 0, -2 * HOUR, 2 * HOUR];

/** Mulberry32: a program can be repeated from its seed. */
function randomFrom(seed: number) {
  let state = seed;
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (count: number): number => Math.floor(next() * count);
  return {
    chance: (share: number): boolean => next() < share,
    of: <Item>(items: readonly Item[]): Item => items[below(items.length)]!,
    some: <Item>(items: readonly Item[], most: number): Item[] =>
      Array.from({ length: below(most + 1) }, () => items[below(items.length)]!),
  };
}

function randomChange(random: ReturnType<typeof randomFrom>, now: number, fields: Fields | undefined): Change {
  const value = (): string => {
    const life = random.of(LIVES);
    return `${life === undefined ? '' : now + life}:${random.of(BODIES)}`;
  };
  const some = (most: number): Fields => new Map(random.some(NAMES, most).map((name) => [name, value()]));
  const cap = random.of(CAPS);
  const idle = random.of(IDLES);
  return {
    now,
    set: some(3),
    unset: random.some(NAMES, 2),
    lifetimeMs: random.of(['never' as const, HOUR, 3 * HOUR, 0]),
    ...(cap !== undefined && { capMs: cap }),
    ...(idle !== undefined && { idleMs: idle }),
    ...(random.chance(0.2) && { purge: random.some(NAMES, 3) }),
    ...(random.chance(0.2) && { ifAbsent: some(3) }),
    ...(random.chance(0.2) && { mustExist: true }),
    ...(random.chance(0.2) && {
      expect: new Map(
        random
          .some(NAMES, 2)
          .map((name) => [name, random.chance(0.8) ? (fields?.get(name) ?? null) : random.of([null, value()])]),
      ),
    }),
  };
}

it(`does what the reference does, in ${PROGRAMS} random programs`, async () => {
  const from = Number(process.env.SEED ?? Date.now() % 2 ** 31);
  for (let seed = from; seed < from + PROGRAMS; seed++) {
    const random = randomFrom(seed);
    const key = newKey();
    const skew = random.of(SKEWS);
    let model: StoredRecord | 'retired' | null = null;
    // The reference converts every expiry at every patch, Redis when a field is written: they differ by what a command takes.
    let slowest = 0;

    for (let step = 0; step < STEPS; step++) {
      const where = `SEED=${seed}, step ${step}`;
      const clock = Date.now();
      const record: StoredRecord | null = model === 'retired' ? null : model;
      if (random.chance(0.03)) {
        const held = await store.retire(key, HOUR, call());
        expect(held, where).toEqual(model === 'retired' ? 'retired' : (record?.fields ?? null));
        model = 'retired';
      } else if (random.chance(0.15)) {
        const touchMs = random.of([undefined, HOUR / 4, 20 * HOUR, 100 * HOUR]);
        expect(await store.read(key, { ...call(), touchMs }), where).toEqual(record?.fields ?? null);
        if (record && touchMs !== undefined) record.idleUntil = clock + touchMs;
      } else {
        const change = randomChange(random, clock + skew, record?.fields);
        const result = await store.patch(key, change, call());
        if (model === 'retired') expect(result, where).toBe('retired');
        else {
          const changed: StoredRecord | string = applyChange(record, change, clock);
          expect(result, where).toBe(typeof changed === 'string' ? changed : 'applied');
          if (typeof changed !== 'string') model = endOf(changed) > clock ? changed : null;
        }
      }
      slowest = Math.max(slowest, Date.now() - clock);

      expect(await store.read(key, call()), where).toEqual(model === 'retired' ? null : (model?.fields ?? null));
      const endsAt = await inspector.pexpiretime(key);
      if (model === null) expect(endsAt, where).toBe(-2);
      else if (model === 'retired') expect(endsAt, where).toBeGreaterThan(clock);
      else if (endOf(model) === Infinity) expect(endsAt, where).toBe(-1);
      else expect(Math.abs(endsAt - endOf(model)), where).toBeLessThanOrEqual(slowest + 1);
    }
    await inspector.del(key);
  }
}, 120_000);
