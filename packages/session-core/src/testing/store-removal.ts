import { same } from './assert.ts';
import { call, change, DAY, fields, HOUR, MINUTE, openEnded, type StoreTests } from './store-suite.ts';

import type { Change } from '../contract/store.ts';

/** Tests that a destroyed session stays destroyed. */
export function testRemoval({ test }: StoreTests): void {
  test(
    'destroying a record returns its fields and removes it',
    'Return the fields that the record has in the step that removes it.',
    async ({ store, key }) => {
      const held = fields({ a: ':1', b: ':2' });
      await store.patch(key, change({ set: held }), call());
      same(await store.destroy(key, HOUR, call()), held);
      same(await store.read(key, call()), null);
    },
  );

  test(
    'destroying a record without fields returns an empty Map',
    'Distinguish a record without fields from a missing record: null means that there was no session.',
    async ({ store, newKey }) => {
      const key = newKey();
      await store.patch(key, change({}), call());
      same(await store.destroy(key, HOUR, call()), new Map());
      same(await store.patch(key, change({ set: fields({ a: ':1' }) }), call()), 'destroyed');
    },
  );

  const changes: [string, Partial<Change>][] = [
    ['an empty change', { set: new Map() }],
    ['`unset` alone', { set: new Map(), unset: ['a'] }],
    ['`set`', {}],
    ['`mustExist`', { mustExist: true }],
    ['`mustBeNew`', { mustBeNew: true }],
    ['`expect`', { expect: new Map([['a', ':1']]) }],
    ['`ifAbsent` alone', { set: new Map(), ifAbsent: fields({ a: ':2' }) }],
  ];
  test(
    'a destroyed key refuses every change',
    'Replace the record by a tombstone, and check for it before the conditions. The result is `destroyed`.',
    async ({ store, key }) => {
      await store.patch(key, change({ set: fields({ a: ':1' }) }), call());
      await store.destroy(key, HOUR, call());
      for (const [what, part] of changes)
        same(await store.patch(key, change({ set: fields({ a: ':2' }), ...part }), call()), 'destroyed', what);
      same(await store.read(key, call()), null);
    },
  );

  test(
    'a key without a record can be destroyed, and then refuses changes',
    'Return null, but still leave a tombstone: a request that creates the record may be on its way.',
    async ({ store, key, refusesFor, now }) => {
      const since = now();
      same(await store.destroy(key, HOUR, call()), null);
      same(await store.patch(key, change({ set: fields({ a: ':1' }) }), call()), 'destroyed');
      same(await store.read(key, call()), null);
      await refusesFor(HOUR, since);
    },
  );

  test(
    'a destroyed key can be used again after the tombstone has expired, and its old fields are gone',
    'Remove the record when the tombstone is created. Do not only hide it.',
    async ({ store, key, eventually, expired }) => {
      for (const held of [openEnded({ set: fields({ a: ':1' }) }), undefined]) {
        if (held) await store.patch(key, held, call());
        else await expired();
        // A store that is not atomic keeps the tombstone for as long as the record could be restored.
        if (held && !store.atomic) continue;
        await store.destroy(key, 1, call());
        same(await store.read(key, call()), null);
        await eventually(
          async () => (await store.patch(key, change({ mustExist: true }), call())) === 'missing',
          'the key is still destroyed, or its record was restored',
        );
        same(await store.read(key, call()), null);
        same(await store.patch(key, change({ set: fields({ b: ':1' }) }), call()), 'applied');
        same(await store.read(key, call()), fields({ b: ':1' }));
        if (!store.atomic) continue;
        same(await store.destroy(key, 1, call()), fields({ b: ':1' }), 'the second record');
        await eventually(
          async () => (await store.patch(key, change({ mustExist: true }), call())) === 'missing',
          'the key is still destroyed, or its record was restored',
        );
        same(await store.patch(key, change({ set: fields({ c: ':1' }), mustBeNew: true }), call()), 'applied');
        same(await store.read(key, call()), fields({ c: ':1' }));
      }
    },
  );

  test(
    'the tombstone lives as long as requested, even if the record would have expired earlier',
    "Give the tombstone its own lifetime. Do not use the record's expiry and idle limit.",
    async ({ store, key, refusesFor, now }) => {
      const set = fields({ a: `${Date.now() + MINUTE}:1` });
      await store.patch(key, change({ set, lifetimeMs: MINUTE, defaultTtlMs: MINUTE, idleMs: MINUTE / 2 }), call());
      const since = now();
      same(await store.destroy(key, HOUR, call()), set);
      await refusesFor(HOUR, since);
    },
  );

  test(
    'a tombstone can live for months',
    'Store its lifetime as whole milliseconds in 64 bits, as for a record.',
    async ({ store, key, refusesFor, now }) => {
      const since = now();
      await store.destroy(key, 60 * DAY, call());
      await refusesFor(60 * DAY, since);
    },
  );

  test(
    'a second removal returns `destroyed`, and never ends or shortens the first tombstone',
    'Keep the later of the two expiries.',
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
    'tombstones and records do not evict each other',
    'Keep every tombstone until it expires, however many there are.',
    async ({ store, newKey }) => {
      const keys = Array.from({ length: 150 }, newKey);
      const each = <Result>(run: (key: string, index: number) => Promise<Result>) => Promise.all(keys.map(run));
      const set = (index: number) => fields({ [`of-${index}`]: ':1' });
      await each((key, index) => store.patch(key, change({ set: set(index) }), call()));
      // Many concurrent calls, each with its own key.
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
    'a second removal with a longer time extends the first tombstone',
    'Keep the later of the two expiries.',
    async ({ store, key, refusesFor, now }) => {
      await store.destroy(key, MINUTE, call());
      const since = now();
      same(await store.destroy(key, HOUR, call()), 'destroyed');
      await refusesFor(HOUR, since);
    },
  );
}
