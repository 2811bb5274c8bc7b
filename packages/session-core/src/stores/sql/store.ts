import { createError } from '../../contract/errors.ts';
import { type DriverStore, legacyKey } from '../../contract/legacy.ts';
import type { Change, Fields, PatchResult, StoreCall } from '../../contract/store.ts';
import { msSince, thisMoment } from '../../platform/clock.ts';
import { pause } from '../../platform/retry.ts';
import { waitUntil } from '../../platform/wait-until.ts';

/** The statements of one SQL database. Each method is one atomic step. `SessionStore` says what `read`, `patch` and `destroy` do. */
export interface SqlStatements {
  read(key: string, call: StoreCall & { extendIdleMs?: number | undefined }): Promise<Fields | null>;
  patch(key: string, change: Change, call: StoreCall): Promise<PatchResult>;
  destroy(key: string, tombstoneMs: number, call: StoreCall): Promise<Fields | 'destroyed' | null>;
  /** Removes up to `limit` expired records by an index, and resolves to their number. */
  sweep(limit: number, call: StoreCall): Promise<number>;
  /** The largest `limit` with which a sweep does not delay other operations. */
  sweepLimit: number;
  /**
   * How many records a sweep after a write removes at most. For platforms that limit the number of statements per request.
   *
   * @default no limit
   */
  sweepAfterWriteLimit?: number;
  /** Creates everything that the other statements need, unless it exists. May run in several processes at once. */
  createTable(call: StoreCall): Promise<void>;
  /** Whether a statement failed because the table, or anything else that `createTable` creates, is missing. */
  isTableMissing(error: unknown): boolean;
  /** Resolves to the value that unstorage's driver `db0` stored under a key; to undefined if there is none, or no such table. */
  readLegacy(key: string, call: StoreCall): Promise<unknown>;
  /** Removes a value of unstorage's driver `db0`. */
  removeLegacy(key: string, call: StoreCall): Promise<void>;
  /** Closes the connections. Absent when there is nothing to close. */
  close?(): Promise<void>;
}

/** Options of `sqlStore`. */
export interface SqlStoreOptions {
  /** The driver's name, for errors. */
  driver: string;
  /** The table, for errors. */
  table: string;
  /** Whether to create a missing table. */
  createTable: boolean;
  /** The timeout of one operation, in milliseconds. A sweep stops after half of it. */
  timeoutMs: number;
}

/** The time after which a write starts a sweep again, in milliseconds. It is sooner if the last sweep had to stop before it was done. */
const SWEEP_EVERY_MS = 60_000;

/**
 * Creates a store on an SQL database. It creates the table when a statement finds that it is missing, so that a user who may not create
 * tables can use an existing one. It sweeps now and then after a write; no request waits for that.
 */
export function sqlStore(
  statements: SqlStatements,
  { driver, table, createTable, timeoutMs }: SqlStoreOptions,
): DriverStore {
  const withTable = <Result>(call: StoreCall, work: () => Promise<Result>): Promise<Result> =>
    work().catch(async (error: unknown) => {
      if (!statements.isTableMissing(error)) throw error;
      if (!createTable) throw missingTable(driver, table);
      await statements.createTable(call);
      call.signal.throwIfAborted();
      return work();
    });

  /** Resolves to the number of removed records, and to whether no more of them were found. */
  const sweep = async (limit: number, call: StoreCall): Promise<{ count: number; isDone: boolean }> => {
    const startedAt = thisMoment();
    let count = 0;
    while (count < limit && msSince(startedAt) < timeoutMs / 2) {
      const next = Math.min(limit - count, statements.sweepLimit);
      const removed = await withTable(call, () => statements.sweep(next, call));
      count += removed;
      if (removed < next) return { count, isDone: true };
      // Let other operations go first.
      await pause(0, { signal: call.signal });
      call.signal.throwIfAborted();
    }
    return { count, isDone: false };
  };

  let sweepAt = Date.now() + SWEEP_EVERY_MS;
  const sweepNowAndThen = (): void => {
    if (Date.now() < sweepAt) return;
    sweepAt = Date.now() + SWEEP_EVERY_MS;
    const limit = statements.sweepAfterWriteLimit ?? Infinity;
    const swept = sweep(limit, { signal: AbortSignal.timeout(timeoutMs) }).then(({ isDone }) => {
      // The next write goes on, or a busy server could create sessions faster than it removes them.
      if (!isDone) sweepAt = 0;
    });
    // No request waits for this sweep, so nobody needs its error. The next sweep tries again.
    void waitUntil(swept.catch(() => undefined));
  };

  return {
    atomic: true,
    read: (key, call) => withTable(call, () => statements.read(key, call)),
    async patch(key, change, call) {
      const result = await withTable(call, () => statements.patch(key, change, call));
      sweepNowAndThen();
      return result;
    },
    destroy: (key, tombstoneMs, call) => withTable(call, () => statements.destroy(key, tombstoneMs, call)),
    sweep: async (limit, call) => (await sweep(limit, call)).count,
    legacySessions: {
      read: (id, base, call) => statements.readLegacy(legacyKey(id, base), call),
      remove: (id, base, call) => statements.removeLegacy(legacyKey(id, base), call),
    },
    ...(statements.close && { close: () => statements.close!() }),
  };
}

function missingTable(driver: string, table: string): Error {
  return createError(
    driver,
    'configuration',
    `The table \`${table}\`, or something that belongs to it, is missing, and \`createTable\` is false. Run the statements that \`npx @coatcheck/${driver} ` +
      `${table}\` prints, or leave out \`createTable\`.`,
  );
}
