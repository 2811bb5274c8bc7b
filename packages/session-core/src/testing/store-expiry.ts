import { isTrue, rejects, same } from './assert.ts';

import { call, change, DAY, fields, HOUR, LIMITS, MINUTE, openEnded, type StoreTests } from './store-suite.ts';

/** Tests of expiry: the expiry and the idle limit of a record, and sweeps. */
export function testExpiry({ test }: StoreTests): void {
  const keepTime =
    'Store lifetimes as whole milliseconds in 64 bits: no rounding down to seconds, no upper limit, no 32-bit timer.';

  // 60 days in milliseconds do not fit into 31 bits. 1100 days are more than the 400 days that browsers allow for a cookie.
  for (const lifetime of [1999, 90_000, HOUR, 36 * HOUR, 60 * DAY, 1100 * DAY]) {
    test(
      `a record lives exactly as long as requested: ${lifetime} ms`,
      keepTime,
      async ({ store, key, livesFor, now: moment }) => {
        const [now, since] = [Date.now(), moment()];
        const set = fields({ a: `${now + lifetime}:1` });
        await store.patch(key, change({ set, lifetimeMs: lifetime, now }), call());
        await livesFor(lifetime, since);
      },
    );
  }

  test(
    'fields without an expiry keep a record for `defaultTtlMs`, or forever if it is absent',
    'An absent `defaultTtlMs` means that the record never expires. Do not use zero or a default of your own.',
    async ({ store, key, livesFor, now }) => {
      const since = now();
      await store.patch(
        key,
        change({ set: fields({ a: ':1' }), lifetimeMs: 40 * DAY, defaultTtlMs: 40 * DAY }),
        call(),
      );
      await livesFor(40 * DAY, since);
      const again = now();
      await store.patch(key, openEnded({ set: fields({ a: ':1' }) }), call());
      await livesFor('never', again);
    },
  );

  for (const [clock, offset] of [
    ['', 0],
    [', with a writer whose clock is two hours behind', -2 * HOUR],
    [', with a writer whose clock is two hours ahead', 2 * HOUR],
  ] as const) {
    test(
      `a record lives as long as its longest-lived field${clock}`,
      "Subtract `now` of the change from the expiry of a field, and add the result to the backend's clock. Do this with every change.",
      async ({ store, key, livesFor, now: moment }) => {
        const now = Date.now() + offset;
        const until = (ms: number) => `${now + ms}:1`;
        const since = moment();
        await store.patch(key, change({ set: fields({ long: until(HOUR) }), lifetimeMs: HOUR, now }), call());
        await store.patch(key, change({ set: fields({ short: until(1) }), lifetimeMs: 1, now }), call());
        await livesFor(HOUR, since);
        const later = Date.now() + offset;
        const again = moment();
        const set = fields({ long: `${later + MINUTE}:2`, short: `${later + 1}:1` });
        await store.patch(key, change({ set, lifetimeMs: MINUTE, now: later }), call());
        await livesFor(MINUTE, again);
      },
    );
  }

  test(
    'a record expires earlier when its longest-lived field is removed',
    'Compute the expiry from the remaining fields.',
    async ({ store, key, livesFor, now: moment }) => {
      const [now, since] = [Date.now(), moment()];
      const set = fields({ long: `${now + HOUR}:1`, short: `${now + MINUTE}:1` });
      await store.patch(key, change({ set, lifetimeMs: HOUR, now }), call());
      await store.patch(key, change({ unset: ['long'], lifetimeMs: MINUTE, now }), call());
      await livesFor(MINUTE, since);
    },
  );

  for (const [fieldsOf, set, lifetime] of [
    ['other fields', { short: MINUTE }, MINUTE],
    ['no other field', {}, 2 * HOUR],
  ] as const) {
    test(
      `a field that starts with \`-:\` does not count for the expiry of a record with ${fieldsOf}`,
      'Leave out such fields when you compute the expiry. A record without any field that counts lives for `lifetimeMs`.',
      async ({ store, key, livesFor, now: moment }) => {
        for (const changeOf of [change, openEnded]) {
          const now = Date.now();
          const ifAbsent = fields({ note: '-:1' });
          const long = { long: `${now + DAY}:1` };
          const first = changeOf({ set: fields(long), ifAbsent, unset: ['note', 'short'], lifetimeMs: DAY, now });
          await store.patch(key, first, call());
          same(await store.read(key, call()), fields({ ...long, note: '-:1' }));
          const since = moment();
          const entries = Object.entries(set).map(([name, ms]): [string, string] => [name, `${now + ms}:1`]);
          const rest = { set: new Map(entries), ifAbsent, unset: ['long'], lifetimeMs: lifetime, now };
          await store.patch(key, changeOf(rest), call());
          same(await store.read(key, call()), new Map([...entries, ['note', '-:1']]));
          await livesFor(lifetime, since);
        }
      },
    );
  }

  test(
    'a field without an expiry keeps the record for `defaultTtlMs` after the last write, whichever field was written',
    'Count `defaultTtlMs` from every write.',
    async ({ store, key, livesFor, now: moment }) => {
      await store.patch(key, change({ set: fields({ open: ':1' }), lifetimeMs: MINUTE, defaultTtlMs: MINUTE }), call());
      const [now, since] = [Date.now(), moment()];
      const set = fields({ other: `${now + 1}:1` });
      await store.patch(key, change({ set, lifetimeMs: 1, defaultTtlMs: HOUR, now }), call());
      await livesFor(HOUR, since);
    },
  );

  test(
    'a record without fields lives for `lifetimeMs`',
    'Use `lifetimeMs` of the change for an empty record, because it has no fields with an expiry.',
    async ({ store, key, livesFor, now }) => {
      await store.patch(key, change({ set: fields({ a: ':1' }) }), call());
      const since = now();
      await store.patch(key, change({ unset: ['a'], lifetimeMs: MINUTE, defaultTtlMs: HOUR }), call());
      await livesFor(MINUTE, since);
    },
  );

  test(
    'a later change can give an expiry to a record that never expires',
    'Let a later change shorten the lifetime of a record.',
    async ({ store, key, livesFor, now }) => {
      await store.patch(key, openEnded({ set: fields({ a: ':1' }) }), call());
      const since = now();
      await store.patch(key, change({ set: fields({ b: ':1' }), lifetimeMs: MINUTE, defaultTtlMs: MINUTE }), call());
      await livesFor(MINUTE, since);
    },
  );

  test(
    'a record that is already expired when it is written does not exist',
    'For a lifetime of zero or less, store nothing, or a record that expires at once. Many backends refuse such a lifetime, or take it for no ' +
      'limit.',
    async ({ store, key, eventually }) => {
      for (const age of [0, 1, DAY]) {
        const now = Date.now();
        // The change replaces a live record.
        await store.patch(key, change({ set: fields({ b: ':1' }) }), call());
        await store.patch(
          key,
          change({ set: fields({ a: `${now - age}:1` }), unset: ['b'], lifetimeMs: -age, now }),
          call(),
        );
        await eventually(async () => (await store.read(key, call())) === null, 'the record still exists');
      }
    },
  );

  for (const limit of LIMITS) {
    test(
      `an expired record counts as missing for every change (by its ${limit})`,
      'Check the expiry in the step that writes. An expired record that is still stored must not affect the change.',
      async ({ store, key, expired }) => {
        await expired(key, limit);
        same(await store.patch(key, change({ set: fields({ a: ':1' }), mustExist: true }), call()), 'missing');
        const expect = new Map([['old', null]]);
        const set = fields({ b: ':1' });
        same(await store.patch(key, change({ set, expect, mustBeNew: true }), call()), 'applied');
        same(await store.read(key, call()), set, 'after a change with `mustBeNew`');
      },
    );
  }

  for (const limit of LIMITS) {
    test(
      `a change of an expired record does not restore its old fields (by its ${limit})`,
      'Replace an expired record, even if it is still stored.',
      async ({ store, key, expired }) => {
        await expired(key, limit);
        same(
          await store.patch(key, change({ set: fields({ a: ':1' }), ifAbsent: fields({ old: ':2' }) }), call()),
          'applied',
        );
        same(await store.read(key, call()), fields({ a: ':1', old: ':2' }));
      },
    );
  }

  for (const limit of LIMITS) {
    test(
      `destroying an expired record returns null (by its ${limit})`,
      'Return a record only if it is unexpired.',
      async ({ store, key, expired }) => {
        await expired(key, limit);
        same(await store.destroy(key, MINUTE, call()), null);
        same(await store.patch(key, change({ set: fields({ a: ':1' }) }), call()), 'destroyed');
      },
    );
  }

  test(
    '`idleMs` limits how long a record lives after a write',
    'Let the record expire at its expiry or after `idleMs`, whichever comes first.',
    async ({ store, key, livesFor, now }) => {
      const since = now();
      await store.patch(key, change({ set: fields({ a: ':1' }), idleMs: MINUTE }), call());
      await livesFor(MINUTE, since);
      const again = now();
      await store.patch(
        key,
        change({ set: fields({ a: ':1' }), lifetimeMs: MINUTE, defaultTtlMs: MINUTE, idleMs: HOUR }),
        call(),
      );
      await livesFor(MINUTE, again);
    },
  );

  test(
    'a write renews the idle limit',
    'Count `idleMs` from the last write, whatever it changes.',
    async ({ store, key, livesFor, now }) => {
      await store.patch(key, change({ set: fields({ a: ':1' }), idleMs: MINUTE }), call());
      const since = now();
      await store.patch(key, change({ set: fields({ b: ':1' }), idleMs: 2 * MINUTE }), call());
      await livesFor(2 * MINUTE, since);
      for (const set of [fields({ a: ':1' }), new Map<string, string>()]) {
        await store.patch(key, change({ set: fields({ a: ':1' }), idleMs: MINUTE }), call());
        const again = now();
        // First a change that writes the same value again, then an empty change.
        same(await store.patch(key, change({ set, idleMs: 5 * MINUTE }), call()), 'applied');
        await livesFor(5 * MINUTE, again);
      }
    },
  );

  test(
    'a write without `idleMs` removes the idle limit',
    'Do not keep the idle limit of an earlier write: the option may have been removed from the configuration.',
    async ({ store, key, livesFor, now }) => {
      await store.patch(key, change({ set: fields({ a: ':1' }), idleMs: MINUTE }), call());
      const since = now();
      await store.patch(key, change({ set: fields({ b: ':1' }) }), call());
      await livesFor(HOUR, since);
    },
  );

  test('idle limits are as precise and as long as lifetimes', keepTime, async ({ store, key, livesFor, now }) => {
    for (const idleMs of [1999, 36 * HOUR, 60 * DAY]) {
      const since = now();
      const set = fields({ a: ':1' });
      await store.patch(key, openEnded({ set, idleMs }), call());
      await livesFor(idleMs, since);
      if (!store.atomic) continue;
      await store.patch(key, openEnded({ set, idleMs: HOUR }), call());
      const touchedAt = now();
      await store.read(key, { ...call(), extendIdleMs: idleMs });
      await livesFor(idleMs, touchedAt);
    }
  });

  test(
    'a read without `extendIdleMs` changes nothing',
    'Extend a record only when the caller asks for it.',
    async ({ store, key, livesFor, now }) => {
      const since = now();
      await store.patch(key, change({ set: fields({ a: ':1' }), idleMs: MINUTE }), call());
      await store.read(key, call());
      await livesFor(MINUTE, since);
    },
  );

  const touching = (extendIdleMs: number) => ({ ...call(), extendIdleMs });

  test(
    'a touch sets the idle limit, later or sooner',
    'Let the record expire `extendIdleMs` after this read, unless its expiry comes first, whatever its idle limit was. A store that is not ' +
      'atomic rejects a touch, which could restore a record that another process destroyed.',
    async ({ store, key, livesFor, now }) => {
      const set = fields({ a: ':1' });
      await store.patch(key, change({ set, idleMs: MINUTE }), call());
      if (!store.atomic) {
        await rejects(store.read(key, touching(MINUTE)));
        return;
      }
      for (const extendIdleMs of [10 * MINUTE, 5 * MINUTE]) {
        await store.patch(key, change({ set, idleMs: 7 * MINUTE }), call());
        const since = now();
        same(await store.read(key, touching(extendIdleMs)), set);
        await livesFor(extendIdleMs, since);
      }
      await store.patch(key, change({ set }), call());
      const since = now();
      await store.read(key, touching(MINUTE));
      await livesFor(MINUTE, since);
    },
  );

  test(
    'a touch never moves the expiry',
    'Store the expiry and the idle limit separately, and let the record expire at the earlier one.',
    async ({ store, key, livesFor, now: moment }) => {
      if (!store.atomic) return void (await rejects(store.read(key, touching(HOUR))));
      const [now, since] = [Date.now(), moment()];
      const set = fields({ a: `${now + MINUTE}:1` });
      await store.patch(key, change({ set, lifetimeMs: MINUTE, idleMs: MINUTE / 2, now }), call());
      same(await store.read(key, touching(HOUR)), set);
      await livesFor(MINUTE, since);
    },
  );

  test(
    'a touch does not change fields or their expiries',
    'Change only the idle limit.',
    async ({ store, key, livesFor, now: moment }) => {
      if (!store.atomic) return void (await rejects(store.read(key, touching(HOUR))));
      const [now, since] = [Date.now(), moment()];
      const set = fields({ a: `${now + HOUR}:1`, open: ':1' });
      await store.patch(key, change({ set, defaultTtlMs: MINUTE, idleMs: MINUTE / 2, now }), call());
      await store.read(key, touching(2 * HOUR));
      await store.patch(key, change({ unset: ['a'], lifetimeMs: MINUTE, defaultTtlMs: MINUTE, now }), call());
      same(await store.read(key, call()), fields({ open: ':1' }));
      await livesFor(MINUTE, since);
    },
  );

  for (const limit of LIMITS) {
    test(
      `a touch does not create a missing record, revive an expired one, or change a tombstone (by its ${limit})`,
      'Touch only a live record.',
      async ({ store, key, expired, refusesFor, now }) => {
        if (!store.atomic) return void (await rejects(store.read(key, touching(HOUR))));
        same(await store.read(key, touching(HOUR)), null, 'a missing record');
        same(await store.patch(key, change({ mustExist: true }), call()), 'missing');
        await expired(key, limit);
        same(await store.read(key, touching(HOUR)), null, 'an expired record');
        same(await store.read(key, call()), null, 'an expired record after a touch');
        same(await store.patch(key, change({ mustExist: true }), call()), 'missing');
        const since = now();
        await store.destroy(key, MINUTE, call());
        same(await store.read(key, touching(HOUR)), null, 'a destroyed key');
        await refusesFor(MINUTE, since);
      },
    );
  }

  test(
    '`sweep` removes expired records only, and no more than its limit',
    'Check the expiry in the step that removes a record. Keep tombstones and live records, also records that never expire.',
    async ({ store, key, expired, passSweepGrace, newKey }) => {
      if (!store.sweep) return;
      const [living, open, destroyed] = [newKey(), newKey(), newKey()];
      const set = fields({ a: ':1' });
      await store.patch(living, change({ set, lifetimeMs: 9 * DAY, defaultTtlMs: 9 * DAY }), call());
      await store.patch(open, openEnded({ set }), call());
      await store.patch(destroyed, change({ set }), call());
      await store.destroy(destroyed, 9 * DAY, call());
      for (const each of [key, newKey(), newKey()]) await expired(each);
      const mustFindAll = await passSweepGrace();

      let total = 0;
      for (const limit of [2, 1, 1000, 1000, 1000]) {
        const count = await store.sweep(limit, call());
        isTrue(count <= limit, `sweep(${limit}) returned ${count}`);
        total += count;
      }
      if (mustFindAll) isTrue(total >= 3, `three records had been expired for a day, and only ${total} were removed`);
      same(await store.read(living, call()), set, 'a record that lives for days');
      same(await store.read(open, call()), set, 'a record that never expires');
      same(await store.patch(destroyed, change({ set }), call()), 'destroyed', 'a tombstone');
    },
  );
}
