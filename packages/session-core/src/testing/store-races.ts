import { isTrue, same } from './assert.ts';
import { call, change, fields, HOUR, MINUTE, type StoreTests, type Subject } from './store-suite.ts';

import type { Fields, PatchResult } from '../contract/store.ts';

/** So often that a store that is wrong does not get through by chance. */
const ROUNDS = 20;
const WRITERS = 8;

const ONE_APPLIED: PatchResult[] = Array.from({ length: WRITERS }, (_, index) =>
  index === 0 ? 'applied' : 'conflict',
);

/** What many do at once is as if one had done it after the other. */
export function testRaces({ test }: StoreTests): void {
  test(
    '64 writers at once lose nothing',
    'Make each change in one step: a statement, a transaction that locks the record before it reads, or compare-and-set.',
    async ({ store, other, key }) => {
      const names = Array.from({ length: 64 }, (_, index) => `field-${index}`);
      const write = (name: string, index: number) =>
        (index % 2 ? store : other).patch(key, change({ set: fields({ [name]: ':1' }) }), call());
      same([...new Set(await Promise.all(names.map(write)))], ['applied']);
      same(await store.read(key, call()), new Map(names.map((name) => [name, ':1'])));
    },
  );

  test(
    'writers that meet lose nothing, however they meet',
    'Lock the record before you read what you write back, or write only on the condition that nobody else has. A window of microseconds is enough.',
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
    'of many who expect the same value one is right',
    'Compare in the step that writes. A condition that is read before it waits for a lock may not hold any more behind it.',
    async (subject) => {
      await repeat(subject, async ({ store, other, key }, round) => {
        // Of nothing, too: null is what all of them expect then.
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
    'of many who make a new record one does, also where one has expired',
    'Look whether there is a live record in the step that writes.',
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
    ['nothing yet', undefined],
  ] as const) {
    test(
      `a removal that meets writers returns exactly what they had stored, and they do not bring it back: ${what}`,
      'Lock the key, also where there is no record, and read what the removal returns behind the lock. A change comes before the removal, ' +
        'is `applied` and part of what it returns, or comes after it and is `destroyed`.',
      async (subject) => {
        await repeat(subject, async ({ store, other, key }, round) => {
          if (initial) await store.patch(key, change({ set: initial }), call());
          const place = round % (WRITERS + 1);
          const writers: Promise<PatchResult>[] = [];
          let removal: Promise<Fields | 'destroyed' | null> | undefined;
          for (let index = 0; index <= WRITERS; index++) {
            if (index === place) removal = store.destroy(key, HOUR, call());
            else {
              const set = fields({ [`w${index}`]: ':1' });
              writers.push((index % 2 ? store : other).patch(key, change({ set }), call()));
            }
            await turns(round % 4);
          }
          const held = await removal!;
          const results = await Promise.all(writers);
          const names = Array.from({ length: WRITERS + 1 }, (_, index) => `w${index}`).toSpliced(place, 1);
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
    'of two removals at once one returns the record, and the other `destroyed`',
    'Read what a removal returns in the step that removes it.',
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
    '`purge` leaves what is renewed at the same time',
    'Look at the stored expiry in the step that removes the field.',
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
    'Write and remove the fields of one change in one step, and read a record in one step as well.',
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
          same([each?.size, sides.size], [2, 1], 'the two fields that are moved together');
        }
      });
    },
  );

  test(
    'a touch loses nothing that is written at the same time',
    'Extend the record in the step that reads it, and write nothing else: a touch that writes back what it read loses what was written in between.',
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
    'a touch does not bring back what is removed at the same time',
    'Extend the record only where it still is: a touch that writes back what it read takes the place of the tombstone.',
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
    'a sweep does not take a record that has just expired and is written anew at the same time',
    'Remove what has expired on the condition that it still has, in the same step, or leave it for more than a minute. Write a record whether or ' +
      'not the sweep has taken the old one.',
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

/** The same on one key after another. */
async function repeat(subject: Subject, run: (subject: Subject, round: number) => Promise<void>): Promise<void> {
  for (let round = 0; round < ROUNDS; round++) await run({ ...subject, key: subject.newKey() }, round);
}

function all<Result>(count: number, run: (index: number) => Promise<Result>): Promise<Result[]> {
  return Promise.all(Array.from({ length: count }, (_, index) => run(index)));
}

/** Lets others go first, without a timer: a fake clock may stand for it. */
async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await Promise.resolve();
}
