import { same } from './assert.ts';
import { call, change, DAY, fields, HOUR, MINUTE, openEnded, type StoreTests } from './store-suite.ts';

import type { Change } from '../contract/store.ts';

/** A removed session stays removed. */
export function testRemoval({ test }: StoreTests): void {
  test(
    'retiring returns what the record held, and removes it',
    'Return the fields that the record had in the step that removes it.',
    async ({ store, key }) => {
      const held = fields({ a: ':1', b: ':2' });
      await store.patch(key, change({ set: held }), call());
      same(await store.destroy(key, HOUR, call()), held);
      same(await store.read(key, call()), null);
    },
  );

  test(
    'retiring a record without fields returns an empty Map',
    'Tell a record without fields from none: null says that there was nobody to sign out.',
    async ({ store, newKey }) => {
      const key = newKey();
      await store.patch(key, change({}), call());
      same(await store.destroy(key, HOUR, call()), new Map());
      same(await store.patch(key, change({ set: fields({ a: ':1' }) }), call()), 'destroyed');
    },
  );

  const changes: [string, Partial<Change>][] = [
    ['nothing at all', { set: new Map() }],
    ['`unset` alone', { set: new Map(), unset: ['a'] }],
    ['any change', {}],
    ['`mustExist`', { mustExist: true }],
    ['`mustBeNew`', { mustBeNew: true }],
    ['`expect`', { expect: new Map([['a', ':1']]) }],
    ['`ifAbsent` alone', { set: new Map(), ifAbsent: fields({ a: ':2' }) }],
  ];
  test(
    'a destroyed key refuses every change',
    'Put a tombstone in the place of the record, and look at it before the conditions: the answer is `destroyed`.',
    async ({ store, key }) => {
      await store.patch(key, change({ set: fields({ a: ':1' }) }), call());
      await store.destroy(key, HOUR, call());
      for (const [what, part] of changes)
        same(await store.patch(key, change({ set: fields({ a: ':2' }), ...part }), call()), 'destroyed', what);
      same(await store.read(key, call()), null);
    },
  );

  test(
    'a key without a record can be destroyed, and refuses changes too',
    'Answer null, and leave a tombstone all the same: a request that creates the record may be on its way.',
    async ({ store, key, refusesFor, now }) => {
      const since = now();
      same(await store.destroy(key, HOUR, call()), null);
      same(await store.patch(key, change({ set: fields({ a: ':1' }) }), call()), 'destroyed');
      same(await store.read(key, call()), null);
      await refusesFor(HOUR, since);
    },
  );

  test(
    'a destroyed key is free again when its time is over, and what it held does not come back',
    'Remove the record when the tombstone is made: do not only hide it.',
    async ({ store, key, eventually, expired }) => {
      for (const held of [openEnded({ set: fields({ a: ':1' }) }), undefined]) {
        if (held) await store.patch(key, held, call());
        else await expired();
        // Where changes are not atomic, a tombstone lives as long as the record that it stands for may come back.
        if (held && !store.atomic) continue;
        await store.destroy(key, 1, call());
        same(await store.read(key, call()), null);
        await eventually(
          async () => (await store.patch(key, change({ mustExist: true }), call())) === 'missing',
          'the key is still destroyed, or its record is back',
        );
        same(await store.read(key, call()), null);
        same(await store.patch(key, change({ set: fields({ b: ':1' }) }), call()), 'applied');
        same(await store.read(key, call()), fields({ b: ':1' }));
        if (!store.atomic) continue;
        same(await store.destroy(key, 1, call()), fields({ b: ':1' }), 'of a second life');
        await eventually(
          async () => (await store.patch(key, change({ mustExist: true }), call())) === 'missing',
          'the key is still destroyed, or its record is back',
        );
        same(await store.patch(key, change({ set: fields({ c: ':1' }), mustBeNew: true }), call()), 'applied');
        same(await store.read(key, call()), fields({ c: ':1' }));
      }
    },
  );

  test(
    'the tombstone lives for as long as it was told, and not only as long as the record would have',
    "Give the tombstone a lifetime of its own: the record's deadline and idle limit end with the record.",
    async ({ store, key, refusesFor, now }) => {
      const set = fields({ a: `${Date.now() + MINUTE}:1` });
      await store.patch(key, change({ set, lifetimeMs: MINUTE, defaultTtlMs: MINUTE, idleMs: MINUTE / 2 }), call());
      const since = now();
      same(await store.destroy(key, HOUR, call()), set);
      await refusesFor(HOUR, since);
    },
  );

  test(
    'a tombstone may live for months',
    'Keep its lifetime in whole milliseconds and 64 bits, as that of a record.',
    async ({ store, key, refusesFor, now }) => {
      const since = now();
      await store.destroy(key, 60 * DAY, call());
      await refusesFor(60 * DAY, since);
    },
  );

  test(
    'a second removal answers `destroyed`, and never ends or shortens the first',
    'Keep the later of the two ends.',
    async ({ store, key, refusesFor, now }) => {
      await store.patch(key, change({ set: fields({ a: ':1' }) }), call());
      const since = now();
      same(await store.destroy(key, HOUR, call()), fields({ a: ':1' }));
      same(await store.destroy(key, MINUTE, call()), 'destroyed');
      same(await store.destroy(key, 0, call()), 'destroyed');
      same(await store.read(key, call()), null);
      await refusesFor(HOUR, since);
    },
  );

  test(
    'tombstones and records do not push each other out',
    'Keep every tombstone for its time, however many there are.',
    async ({ store, newKey }) => {
      const keys = Array.from({ length: 150 }, newKey);
      const each = <Result>(run: (key: string, index: number) => Promise<Result>) => Promise.all(keys.map(run));
      const set = (index: number) => fields({ [`of-${index}`]: ':1' });
      await each((key, index) => store.patch(key, change({ set: set(index) }), call()));
      // Many at once, each with its own key.
      same(
        await each((key) => store.read(key, call())),
        keys.map((_key, index) => set(index)),
      );
      same(
        await each((key) => store.destroy(key, HOUR, call())),
        keys.map((_key, index) => set(index)),
      );
      const late = await each((key, index) => store.patch(key, change({ set: set(index) }), call()));
      same([...new Set(late)], ['destroyed']);
    },
  );

  test(
    'a second removal that lasts longer extends the first',
    'Keep the later of the two ends.',
    async ({ store, key, refusesFor, now }) => {
      await store.destroy(key, MINUTE, call());
      const since = now();
      same(await store.destroy(key, HOUR, call()), 'destroyed');
      await refusesFor(HOUR, since);
    },
  );
}
