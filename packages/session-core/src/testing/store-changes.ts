import { same } from './assert.ts';
import { call, change, fields, HOUR, MINUTE, type StoreTests } from './store-suite.ts';

import type { Change } from '../contract/store.ts';

/** Tests of a change: its conditions, and the order of its parts. */
export function testChanges({ test }: StoreTests): void {
  test(
    '`mustExist` refuses a change if there is no record',
    'Return `missing` and store nothing.',
    async ({ store, key }) => {
      same(await store.patch(key, change({ set: fields({ a: ':1' }), mustExist: true }), call()), 'missing');
      same(await store.read(key, call()), null);
    },
  );

  test(
    '`mustBeNew` refuses a change if there is a record',
    'Return `conflict` and store nothing.',
    async ({ store, key }) => {
      const attempt = (value: string) =>
        store.patch(key, change({ set: fields({ a: value }), mustBeNew: true }), call());
      same(await attempt(':1'), 'applied');
      await store.patch(key, change({ unset: ['a'] }), call());
      same(await attempt(':2'), 'conflict', 'a record without fields');
      await store.patch(key, change({ set: fields({ a: ':1' }) }), call());
      same(await attempt(':2'), 'conflict');
      same(await store.read(key, call()), fields({ a: ':1' }));
    },
  );

  test(
    '`expect` refuses a change unless every field has its expected value; null stands for no field',
    'Compare every field of `expect` in the same step that writes.',
    async ({ store, key }) => {
      await store.patch(key, change({ set: fields({ a: ':1', x: ':"X"' }) }), call());
      const attempt = (expect: [string, string | null][], value: string) =>
        store.patch(key, change({ set: fields({ a: value }), expect: new Map(expect) }), call());
      same(await attempt([['a', ':2']], ':9'), 'conflict');
      same(await attempt([['a', ':']], ':9'), 'conflict');
      same(await attempt([['a', null]], ':9'), 'conflict');
      for (const similar of [':"x"', ':"X" ', ': "X"', ':"X', `${Date.now() + HOUR}:"X"`])
        same(await attempt([['x', similar]], ':9'), 'conflict', similar);
      const bothNeeded: [string, string][] = [
        ['a', ':1'],
        ['b', ':1'],
      ];
      same(await attempt(bothNeeded, ':9'), 'conflict');
      same(await attempt(bothNeeded.toReversed(), ':9'), 'conflict');
      same(await store.read(key, call()), fields({ a: ':1', x: ':"X"' }));
      const bothHold: [string, string | null][] = [
        ['a', ':1'],
        ['b', null],
      ];
      same(await attempt(bothHold, ':2'), 'applied');
      same(await store.read(key, call()), fields({ a: ':2', x: ':"X"' }));
    },
  );

  test(
    '`expect` treats a missing record like a record without fields',
    'If there is no record, it has no fields: an expected null is met, and any other expected value is a conflict.',
    async ({ store, key }) => {
      const attempt = (expected: string | null) =>
        store.patch(key, change({ set: fields({ a: ':1' }), expect: new Map([['a', expected]]) }), call());
      same(await attempt(':0'), 'conflict');
      same(await store.read(key, call()), null);
      same(await attempt(null), 'applied');
      same(await attempt(null), 'conflict');
    },
  );

  const everything: Partial<Change> = {
    set: fields({ a: ':9', new: ':9' }),
    ifAbsent: fields({ absent: ':9' }),
    unset: ['b'],
    purge: ['past'],
    lifetimeMs: MINUTE,
    defaultTtlMs: MINUTE,
    idleMs: MINUTE,
  };
  const refusals: [string, Partial<Change>][] = [
    ['`expect`', { expect: new Map([['a', ':2']]) }],
    ['`mustBeNew`', { mustBeNew: true }],
  ];
  for (const [condition, refused] of refusals) {
    test(
      `a change that ${condition} refuses changes nothing: no field, no lifetime, no idle limit`,
      'Check all conditions before the first write, in the same step.',
      async ({ store, key, livesFor, now }) => {
        const held = fields({ a: ':1', b: ':1', past: `${Date.now() - HOUR}:1` });
        const since = now();
        await store.patch(key, change({ set: held }), call());
        same(await store.patch(key, change({ ...everything, ...refused }), call()), 'conflict');
        same(await store.read(key, call()), held);
        await livesFor(HOUR, since);
      },
    );
  }

  test(
    'the order is `unset`, `purge`, `ifAbsent`, `set`',
    'Remove fields first. Then write `ifAbsent` where the field is absent now, also if it was just removed. Write `set` last.',
    async ({ store, key }) => {
      const now = Date.now();
      await store.patch(
        key,
        change({ set: fields({ a: ':1', b: `${now - 10}:1`, c: ':1', d: ':1', e: ':1' }) }),
        call(),
      );
      await store.patch(
        key,
        change({
          unset: ['a', 'c'],
          purge: ['b'],
          ifAbsent: fields({ a: ':absent', b: ':absent', c: ':absent', d: ':absent', f: ':absent', g: ':absent' }),
          set: fields({ c: ':set', e: ':set', f: ':set' }),
          now,
        }),
        call(),
      );
      same(
        await store.read(key, call()),
        fields({ a: ':absent', b: ':absent', c: ':set', d: ':1', e: ':set', f: ':set', g: ':absent' }),
      );
    },
  );

  test(
    '`ifAbsent` creates a record if there is none',
    'Treat a missing record like a record without fields.',
    async ({ store, key }) => {
      const creation = change({ set: fields({ a: ':1' }), ifAbsent: fields({ a: ':8', b: ':8' }) });
      same(await store.patch(key, creation, call()), 'applied');
      same(await store.read(key, call()), fields({ a: ':1', b: ':8' }));
    },
  );

  test(
    '`purge` removes expired fields, and keeps renewed ones',
    'Check the expiry that is stored with the field now: another request may have renewed it.',
    async ({ store, key }) => {
      const now = Date.now();
      const held = fields({ old: `${now - 10}:1`, renewed: `${now + HOUR}:1`, open: ':1', kept: `${now - 10}:1` });
      await store.patch(key, change({ set: held, now }), call());
      await store.patch(key, change({ purge: ['old', 'renewed', 'open', 'unknown'], now }), call());
      held.delete('old');
      same(await store.read(key, call()), held);
    },
  );

  test(
    '`purge` uses the clock of the writer',
    'Compare the expiry of a field with `now` of the change, not with your own clock: the two may be hours apart.',
    async ({ store, key }) => {
      for (const offset of [-2 * HOUR, 2 * HOUR]) {
        const now = Date.now() + offset;
        const held = fields({ past: `${now - MINUTE}:1`, coming: `${now + MINUTE}:1`, open: ':1' });
        await store.patch(key, change({ set: held, now }), call());
        await store.patch(key, change({ purge: ['past', 'coming'], now }), call());
        same(await store.read(key, call()), fields({ coming: held.get('coming')!, open: ':1' }), `${offset} ms apart`);
      }
    },
  );
}
