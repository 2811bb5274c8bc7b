import { setImmediate as nextTick } from 'node:timers/promises';
import { withFakeClock } from '@coatcheck/test-support/clock';
import { call, change } from '@coatcheck/test-support/stores';
import { describe, expect, it } from 'vitest';
import { sqlStore, type SqlStatements } from '../src/stores/sql/store.ts';

const { passTime } = withFakeClock('performance');

/** A store whose table has `expired` records, each of which takes a second to remove. */
function storeWith({ expired }: { expired: number }) {
  const table = { expired, steps: 0 };
  const statements: SqlStatements = {
    read: async () => null,
    patch: async () => 'applied',
    destroy: async () => null,
    sweepLimit: 1,
    async sweep(limit) {
      passTime(1000);
      table.steps++;
      const removed = Math.min(limit, table.expired);
      table.expired -= removed;
      return removed;
    },
    createTable: async () => undefined,
    isTableMissing: () => false,
    readLegacy: async () => undefined,
    removeLegacy: async () => undefined,
  };
  const store = sqlStore(statements, { driver: 'session-test', table: 'sessions', createTable: true, timeoutMs: 6000 });
  const write = () => store.patch('key', change({}), call());
  return { table, store, write };
}

describe('the sweep of a store on SQL', () => {
  it('stops after half of the timeout', async () => {
    const { store, table } = storeWith({ expired: 10 });
    expect(await store.sweep!(100, call())).toBe(3);
    expect(table.expired).toBe(7);
  });

  it('goes on with the next write when it had to stop', async () => {
    const { table, write } = storeWith({ expired: 5 });
    passTime(60_000);
    while (table.steps < 6) {
      await write();
      await nextTick();
    }
    expect(table.expired).toBe(0);
  });

  it('waits for a minute when it was done', async () => {
    const { table, write } = storeWith({ expired: 0 });
    passTime(60_000);
    await write();
    expect(table.steps).toBe(1);
    await nextTick();
    passTime(58_000);
    await write();
    expect(table.steps).toBe(1);
    passTime(1000);
    await write();
    expect(table.steps).toBe(2);
  });

  it('runs once at a time', async () => {
    const { table, write } = storeWith({ expired: 5 });
    passTime(60_000);
    await Promise.all([write(), write(), write()]);
    expect(table.steps).toBe(1);
  });
});
