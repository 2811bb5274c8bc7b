import { DatabaseSync } from 'node:sqlite';
import { applyChange, endOf, type Change, type StoredRecord } from '@coatcheck/session-core/driver';
import { createSqliteTableSql, packFields, sqliteBatch, sqlStore, unpackFields } from '@coatcheck/session-core/sql';
import { testStore } from '@coatcheck/session-core/testing';
import { withFakeClock } from '@coatcheck/test-support/clock';
import { call } from '@coatcheck/test-support/stores';
import fc from 'fast-check';
import { describe, expect, it, onTestFinished } from 'vitest';

// The SQL that D1 and libSQL run, in an SQLite database of this process. It must have the same results as `applyChange`.

const NEVER = 8.64e15;

/** A database in memory. Its clock is `now`. */
function openDatabase(now: () => number) {
  const database = new DatabaseSync(':memory:');
  database.function('unixepoch', { varargs: true }, () => now() / 1000);
  const statements = sqliteBatch('coatcheck_sessions', async (batch, { call: { signal } }) => {
    signal.throwIfAborted();
    database.exec('BEGIN IMMEDIATE');
    try {
      const results = batch.map(({ sql, parameters }) => database.prepare(sql).all(...parameters));
      database.exec('COMMIT');
      return results;
    } catch (error) {
      database.exec('ROLLBACK');
      throw error;
    }
  });
  return { database, statements };
}

describe('the store', () => {
  const { statements } = openDatabase(() => Date.now());
  const options = { driver: 'test', table: 'coatcheck_sessions', createTable: true, timeoutMs: 60_000 };
  testStore({ it, createStore: () => sqlStore(statements, options), ...withFakeClock() });
});

// Names and values are well-formed. Most names have what JSON or `packName` escapes.
const name = fc.oneof(
  fc.constantFrom('a', 'b'),
  fc.constantFrom(
    'a',
    'b',
    'user',
    '__proto__',
    'constructor',
    '',
    '0',
    '-1',
    '\\',
    '\\\\',
    '\\"',
    '"',
    '%',
    '%5C',
    '%%',
    '\0',
    '\u001f',
    '\n',
    '\u007f',
    '\u2028',
    '🧥',
    '.',
    '$',
    '[0]',
  ),
  fc.string({ unit: 'binary', maxLength: 3 }),
);
const NOW = 1_800_000_000_000;
const expiry = fc.oneof(
  { weight: 5, arbitrary: fc.constantFrom(-1000, -1, 0, 1, 1000).map((ms) => `${NOW + ms}`) },
  { weight: 2, arbitrary: fc.integer({ min: -2000, max: 2000 }).map((ms) => `${NOW + ms}`) },
  { weight: 3, arbitrary: fc.constant('') },
  fc.constantFrom(
    '0',
    '-5',
    '007',
    '8640000000000000',
    '9'.repeat(30),
    `-${'9'.repeat(30)}`,
    '1-2',
    '--1',
    '-',
    '+1',
    ' 1',
    '1 ',
    '1.5',
    '1e3',
    '0x1',
    'x',
    '१',
  ),
);
const value = fc.oneof(
  {
    weight: 9,
    arbitrary: fc
      .tuple(expiry, fc.oneof(name, fc.constantFrom('["ada"]', '{}', 'null', ':', '')))
      .map((parts) => parts.join(':')),
  },
  name,
);
const names = fc.array(name, { maxLength: 4 });
const fields = (maxLength = 5) => fc.array(fc.tuple(name, value), { maxLength }).map((entries) => new Map(entries));
const lifetime = fc.oneof(fc.integer({ min: -100, max: 5000 }), fc.constantFrom(0, 1, 31_536_000_000, 1e300));
const maybe = <Value>(some: fc.Arbitrary<Value>) => fc.option(some, { nil: undefined });
const rarely = <Value>(some: fc.Arbitrary<Value>) => fc.oneof({ weight: 6, arbitrary: fc.constant(undefined) }, some);

interface Step {
  change: Omit<Change, 'expect'>;
  /** Expects of these fields what they have now. */
  expectCurrent: readonly string[];
  /** Expects these fields besides. */
  expectOther: ReadonlyMap<string, string | null>;
  /** How much time passes before the change. */
  passMs: number;
  /** Destroys the record before the change, for this long. */
  destroyMs: number | undefined;
  /** Reads and touches the record before the change. */
  touchMs: number | undefined;
}

const step: fc.Arbitrary<Step> = fc.record({
  change: fc
    .record({
      set: fields(),
      ifAbsent: maybe(fields()),
      unset: names,
      purge: maybe(names),
      condition: fc.constantFrom(undefined, undefined, undefined, 'mustExist', 'mustBeNew'),
      lifetimeMs: fc.oneof(lifetime, fc.constant('never' as const)),
      defaultTtlMs: maybe(lifetime),
      idleMs: maybe(lifetime),
      // Often the very millisecond in which a field expires.
      now: fc.oneof(fc.constantFrom(NOW - 1000, NOW, NOW + 1000), fc.integer({ min: NOW - 3000, max: NOW + 3000 })),
    })
    .map(({ condition, ifAbsent, purge, defaultTtlMs, idleMs, ...change }) => ({
      ...change,
      ...(ifAbsent && { ifAbsent }),
      ...(purge && { purge }),
      ...(defaultTtlMs !== undefined && { defaultTtlMs }),
      ...(idleMs !== undefined && { idleMs }),
      ...(condition && { [condition]: true }),
    })),
  expectCurrent: fc.oneof({ weight: 3, arbitrary: fc.constant<string[]>([]) }, names),
  expectOther: fc.oneof(
    { weight: 4, arbitrary: fc.constant(new Map()) },
    fc.array(fc.tuple(name, fc.option(value, { nil: null })), { maxLength: 2 }).map((entries) => new Map(entries)),
  ),
  passMs: fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.integer({ min: 0, max: 4000 })),
  destroyMs: rarely(fc.integer({ min: -10, max: 2000 })),
  touchMs: rarely(lifetime),
});

it('thousands of random changes have the same results as those of `applyChange`', async () => {
  let clock = NOW;
  const { database, statements } = openDatabase(() => clock);
  onTestFinished(() => database.close());
  database.exec(createSqliteTableSql());
  const results = new Map<string, number>();

  const run = async (steps: Step[]): Promise<void> => {
    clock = NOW;
    database.exec('DELETE FROM coatcheck_sessions');
    // The same record as a model: null for none, and the end of its tombstone.
    let record: StoredRecord | null = null;
    let destroyedUntil = -Infinity;
    for (const { change: rest, expectCurrent, expectOther, passMs, destroyMs, touchMs } of steps) {
      clock += passMs;
      const isDestroyed = (): boolean => destroyedUntil > clock;
      const live = (): StoredRecord | null => (record && endOf(record) > clock ? record : null);

      const before = await statements.read('key', { ...call(), extendIdleMs: touchMs });
      expect(before).toEqual(live()?.fields ?? null);
      if (touchMs !== undefined && live()) record = { ...record!, idleUntil: clock + touchMs };

      if (destroyMs !== undefined) {
        const held = await statements.destroy('key', destroyMs, call());
        expect(held).toEqual(isDestroyed() ? 'destroyed' : (live()?.fields ?? null));
        destroyedUntil = Math.max(clock + destroyMs, isDestroyed() ? destroyedUntil : -Infinity);
        record = null;
      }

      const current = live();
      const expected = new Map<string, string | null>([
        ...expectCurrent.map((each) => [each, current?.fields.get(each) ?? null] as const),
        ...expectOther,
      ]);
      const change: Change = { ...rest, ...(expected.size > 0 && { expect: expected }) };
      const result = await statements.patch('key', change, call());
      results.set(result, (results.get(result) ?? 0) + 1);
      if (isDestroyed()) {
        expect(result).toBe('destroyed');
        continue;
      }
      const changed = applyChange(current, change, clock);
      expect(result).toBe(typeof changed === 'string' ? changed : 'applied');
      if (typeof changed === 'string') continue;
      record = changed;
      const row = database.prepare('SELECT * FROM coatcheck_sessions').get() as {
        until: number;
        expires: number;
        fields: string;
        bucket: number;
      };
      expect(unpackFields(row.fields)).toEqual(changed.fields);
      expect(JSON.parse(row.fields)).toEqual(JSON.parse(packFields(changed.fields)));
      // The database stores no time before 1970, and none that a Date cannot represent.
      const timestamp = (ms: number): number => Math.max(Math.min(ms, NEVER), 0);
      expect(row.expires).toBe(timestamp(changed.expires));
      expect(row.until).toBe(timestamp(endOf(changed)));
      expect(row.bucket).toBe(Math.trunc(row.until / 600_000));
    }
  };

  await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12 }), run), { numRuns: 1500 });
  // Each result occurred often enough to be tested.
  expect(
    Math.min(...['applied', 'conflict', 'missing', 'destroyed'].map((result) => results.get(result) ?? 0)),
  ).toBeGreaterThan(50);
});
