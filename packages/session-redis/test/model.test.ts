import { applyChange, endOf, type Change, type Fields, type StoredRecord } from '@coatcheck/session-core/driver';
import { afterAll, expect, it } from 'vitest';
import { redisUrl } from '@coatcheck/test-support/redis-server';
import { call, newKey } from '@coatcheck/test-support/stores';
import { openInspector, openStore } from './support/store.ts';

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

function randomChange(random: ReturnType<typeof randomFrom>, now: number, fields: Fields | null): Change {
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
    ...(cap !== undefined && { defaultTtlMs: cap }),
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

/** What one step did, as far as anybody can see. */
interface Seen {
  result: unknown;
  fields: unknown;
  /** Whether the key ends when it should, or by how many milliseconds it does not. */
  end: number | 'right';
}

/** Runs one program on Redis and on the reference, and says what each did in every step. */
async function play(seed: number): Promise<{ seen: Seen[]; expected: Seen[] }> {
  const random = randomFrom(seed);
  const key = newKey();
  const skew = random.of(SKEWS);
  const seen: Seen[] = [];
  const expected: Seen[] = [];
  let record: StoredRecord | null = null;
  let tombstoneUntil: number | undefined;
  // The reference converts every expiry at every patch, Redis when a field is written: they differ by what a command takes.
  let slowest = 0;

  for (let step = 0; step < STEPS; step++) {
    const clock = Date.now();
    const fields: Fields | null = record?.fields ?? null;
    let result: unknown;
    let right: unknown;
    if (random.chance(0.03)) {
      result = await store.destroy(key, HOUR, call());
      right = tombstoneUntil === undefined ? fields : 'destroyed';
      record = null;
      tombstoneUntil = clock + HOUR;
    } else if (random.chance(0.15)) {
      const extendIdleMs = random.of([undefined, HOUR / 4, 20 * HOUR, 100 * HOUR]);
      result = await store.read(key, { ...call(), extendIdleMs });
      right = fields;
      if (record && extendIdleMs !== undefined) record.idleUntil = clock + extendIdleMs;
    } else {
      const change = randomChange(random, clock + skew, fields);
      result = await store.patch(key, change, call());
      const changed: StoredRecord | string =
        tombstoneUntil === undefined ? applyChange(record, change, clock) : 'destroyed';
      right = typeof changed === 'string' ? changed : 'applied';
      if (typeof changed !== 'string') record = endOf(changed) > clock ? changed : null;
    }
    slowest = Math.max(slowest, Date.now() - clock);

    const end = tombstoneUntil ?? (record ? endOf(record) : NO_KEY);
    const off = Math.abs((await inspector.pexpiretime(key)) - (end === Infinity ? NO_END : end));
    seen.push({ result, fields: await store.read(key, call()), end: off <= slowest + 1 ? 'right' : off });
    expected.push({ result: right, fields: record?.fields ?? null, end: 'right' });
  }
  await inspector.del(key);
  return { seen, expected };
}

/** What Redis answers in place of the moment at which a key goes. */
const NO_KEY = -2;
const NO_END = -1;

const from = Number(process.env.SEED ?? Date.now() % 2 ** 31);

it(`does what the reference does in ${PROGRAMS} random programs, from SEED=${from} on`, async () => {
  for (let seed = from; seed < from + PROGRAMS; seed++) {
    const { seen, expected } = await play(seed);
    expect({ seed, steps: seen }).toEqual({ seed, steps: expected });
  }
}, 120_000);
