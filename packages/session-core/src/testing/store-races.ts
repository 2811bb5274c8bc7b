import { isTrue, same } from './assert.ts';
import { call, change, fields, HOUR, MINUTE, type StoreTests, type Subject } from './store-suite.ts';

import type { Fields, PatchResult } from '../contract/store.ts';

/** Enough repetitions that a wrong store does not pass by chance. */
const ROUNDS = 20;
const WRITERS = 8;

const ONE_APPLIED: PatchResult[] = Array.from({ length: WRITERS }, (_, index) =>
  index === 0 ? 'applied' : 'conflict',
);

/** Tests that concurrent calls have the same effect as calls one after the other. */
export function testRaces({ test }: StoreTests): void {
  test(
    '64 concurrent writers lose no updates',
    'Apply each change in one step: one statement, a transaction that locks the record before it reads, or compare-and-set.',
    async ({ store, other, key }) => {
      const names = Array.from({ length: 64 }, (_, index) => `field-${index}`);
      const write = (name: string, index: number) =>
        (index % 2 ? store : other).patch(key, change({ set: fields({ [name]: ':1' }) }), call());
      same([...new Set(await Promise.all(names.map(write)))], ['applied']);
      same(await store.read(key, call()), new Map(names.map((name) => [name, ':1'])));
    },
  );

  test(
    'concurrent writers lose no updates, whatever their timing',
    'Lock the record before you read it, or write only if it has not changed since. A window of microseconds is enough to lose an update.',
    async (subject) => {
      await repeat(subject, async ({ store, other, key }, round) => {
        const results = await all(WRITERS, async (index) => {
          await turns((index * round) % 11);
          const set = fields({ [`w${index}`]: ':1' });
          return (index % 2 ? store : other).patch(key, change({ set }), call());
        });
        same([...new Set(results)], ['applied']);
        same((await store.read(key, call()))?.size, WRITERS, 'fields');
      });
    },
  );

  test(
    'of concurrent changes that expect the same value, exactly one is applied',
    'Compare in the step that writes. A condition that was checked before waiting for a lock may be false after it.',
    async (subject) => {
      await repeat(subject, async ({ store, other, key }, round) => {
        // In every other round there is no record, and all of them expect null.
        const before = round % 2 ? ':0' : null;
        if (before !== null) await store.patch(key, change({ set: fields({ count: before }) }), call());
        const results = await all(WRITERS, (index) => {
          const expect = new Map([['count', before]]);
          const set = fields({ count: `:${index}1` });
          return (index % 2 ? store : other).patch(key, change({ set, expect }), call());
        });
        same(results.toSorted(), ONE_APPLIED);
      });
    },
  );

  test(
    'of concurrent changes that create a record, exactly one is applied, even after an expired record',
    'Check whether there is a live record in the step that writes.',
    async (subject) => {
      await repeat(subject, async ({ store, other, key, expired }, round) => {
        if (round % 10 === 1) await expired(key);
        const results = await all(WRITERS, (index) => {
          const set = fields({ [`made-by-${index}`]: ':1' });
          return (index % 2 ? store : other).patch(key, change({ set, mustBeNew: true }), call());
        });
        same(results.toSorted(), ONE_APPLIED);
        const winner = results.indexOf('applied');
        same(await store.read(key, call()), fields({ [`made-by-${winner}`]: ':1' }));
      });
    },
  );

  for (const [what, initial] of [
    ['a record', fields({ first: ':1' })],
    ['no record', undefined],
  ] as const) {
    test(
      `destroying a record during writes returns exactly the writes that were applied, and no write restores it: ${what}`,
      'Lock the key, even if there is no record, and read the result of the removal after that. A change before the removal is `applied` and is ' +
        'part of its result. A change after it returns `destroyed`.',
      async (subject) => {
        await repeat(subject, async ({ store, other, key }, round) => {
          if (initial) await store.patch(key, change({ set: initial }), call());
          const position = round % (WRITERS + 1);
          const writers: Promise<PatchResult>[] = [];
          let removal: Promise<Fields | 'destroyed' | null> | undefined;
          for (let index = 0; index <= WRITERS; index++) {
            if (index === position) removal = store.destroy(key, HOUR, call());
            else {
              const set = fields({ [`w${index}`]: ':1' });
              writers.push((index % 2 ? store : other).patch(key, change({ set }), call()));
            }
            await turns(round % 4);
          }
          const held = await removal!;
          const results = await Promise.all(writers);
          const names = Array.from({ length: WRITERS + 1 }, (_, index) => `w${index}`).toSpliced(position, 1);
          const applied = names.filter((_, index) => results[index] === 'applied');
          same(
            results.filter((result) => result !== 'applied' && result !== 'destroyed'),
            [],
          );
          const before = new Map([...(initial ?? []), ...applied.map((name) => [name, ':1'] as const)]);
          same(held, initial || applied.length > 0 ? before : null, 'what the removal returned');
          same(await other.read(key, call()), null, 'after the removal');
          same(await other.patch(key, change({ set: fields({ late: ':1' }) }), call()), 'destroyed');
        });
      },
    );
  }

  test(
    'of two concurrent removals, one returns the record and the other `destroyed`',
    'Read the record in the step that removes it.',
    async (subject) => {
      await repeat(subject, async ({ store, other, key, refusesAfter }) => {
        await store.patch(key, change({ set: fields({ a: ':1' }) }), call());
        const held = await Promise.all([store.destroy(key, HOUR, call()), other.destroy(key, MINUTE, call())]);
        same(held.filter((each) => each === 'destroyed').length, 1);
        same(
          held.find((each) => each !== 'destroyed'),
          fields({ a: ':1' }),
        );
        await refusesAfter(key, HOUR / 2);
      });
    },
  );

  test(
    '`purge` keeps a field that is renewed concurrently',
    'Check the stored expiry in the step that removes the field.',
    async (subject) => {
      await repeat(subject, async ({ store, other, key }, round) => {
        const now = Date.now();
        await store.patch(key, change({ set: fields({ a: `${now - MINUTE}:1`, b: ':1' }), now }), call());
        const purged = all(WRITERS, async (index) => {
          await turns((index * round) % 7);
          return (index % 2 ? store : other).patch(key, change({ purge: ['a'], now }), call());
        });
        await turns(round % 7);
        const renewed = `${now + HOUR}:2`;
        await store.patch(key, change({ set: fields({ a: renewed }), now }), call());
        await purged;
        same(await store.read(key, call()), fields({ a: renewed, b: ':1' }));
      });
    },
  );

  test(
    'a reader sees all of a change or nothing of it',
    'Write and remove the fields of a change in one step, and read the record in one step as well.',
    async (subject) => {
      await repeat(subject, async ({ store, other, key }) => {
        await store.patch(key, change({ set: fields({ left1: ':1', left2: ':1' }) }), call());
        const move = (from: string, to: string) =>
          store.patch(
            key,
            change({ set: fields({ [`${to}1`]: ':1', [`${to}2`]: ':1' }), unset: [`${from}1`, `${from}2`] }),
            call(),
          );
        const moving = (async () => {
          for (let step = 0; step < 2; step++) {
            await move('left', 'right');
            await move('right', 'left');
          }
        })();
        const seen = await all(WRITERS, async (index) => {
          await turns(index);
          const touch = other.atomic && index % 2 ? { extendIdleMs: HOUR } : {};
          return other.read(key, { ...call(), ...touch });
        });
        await moving;
        for (const each of seen) {
          const sides = new Set([...(each?.keys() ?? [])].map((name) => name.slice(0, -1)));
          same([each?.size, sides.size], [2, 1], 'two fields that are always moved together');
        }
      });
    },
  );

  test(
    'a touch does not lose concurrent writes',
    'Extend the record in the step that reads it, and write nothing else. Writing back the fields that were read loses the writes in between.',
    async (subject) => {
      if (!subject.store.atomic) return;
      await repeat(subject, async ({ store, other, key }) => {
        await store.patch(key, change({ set: fields({ first: ':1' }), idleMs: HOUR }), call());
        await all(WRITERS, async (index) => {
          const touched = (index % 2 ? other : store).read(key, { ...call(), extendIdleMs: HOUR });
          await turns(index);
          const set = fields({ [`w${index}`]: ':1' });
          same(await (index % 2 ? store : other).patch(key, change({ set, idleMs: HOUR }), call()), 'applied');
          isTrue((await touched) !== null, 'a touch did not see the record');
        });
        same((await store.read(key, call()))?.size, WRITERS + 1, 'fields');
      });
    },
  );

  test(
    'a touch does not restore a record that is destroyed concurrently',
    'Extend the record only if it still exists. Writing back the fields that were read would overwrite the tombstone.',
    async (subject) => {
      if (!subject.store.atomic) return;
      await repeat(subject, async ({ store, other, key }, round) => {
        await store.patch(key, change({ set: fields({ a: ':1' }), idleMs: HOUR }), call());
        const touches = all(WRITERS, async (index) => {
          await turns(index);
          return (index % 2 ? other : store).read(key, { ...call(), extendIdleMs: HOUR });
        });
        await turns(round % WRITERS);
        same(await store.destroy(key, HOUR, call()), fields({ a: ':1' }));
        await touches;
        same(await other.read(key, call()), null);
        same(await other.patch(key, change({ set: fields({ b: ':1' }) }), call()), 'destroyed');
      });
    },
  );

  test(
    'a sweep does not remove an expired record that is written again concurrently',
    'Remove a record on the condition that it is still expired, in one step, or keep it for more than a minute after it has expired. Writes must ' +
      'succeed whether or not the sweep has removed the old record.',
    async (subject) => {
      if (!subject.store.sweep) return;
      const { store, other, newKey, expired } = subject;
      const keys = Array.from({ length: 2 * WRITERS }, newKey);
      for (const key of keys) await expired(key);
      const sweeping = Promise.all([store.sweep!(1000, call()), other.sweep!(1000, call())]);
      const set = fields({ a: ':1' });
      const results = await all(keys.length, async (index) => {
        await turns(index);
        return (index % 2 ? store : other).patch(keys[index]!, change({ set }), call());
      });
      await sweeping;
      same([...new Set(results)], ['applied']);
      for (const key of keys) same(await store.read(key, call()), set);
    },
  );
}

/** Runs a test several times, each with a new key. */
async function repeat(subject: Subject, run: (subject: Subject, round: number) => Promise<void>): Promise<void> {
  for (let round = 0; round < ROUNDS; round++) await run({ ...subject, key: subject.newKey() }, round);
}

function all<Result>(count: number, run: (index: number) => Promise<Result>): Promise<Result[]> {
  return Promise.all(Array.from({ length: count }, (_, index) => run(index)));
}

/** Yields to other promises. It uses no timer, because the clock may be fake. */
async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await Promise.resolve();
}
