import { applyChange, endOf, type Fields, type StoreCall, type StoredRecord } from '@coatcheck/session-core/driver';
import {
  BUCKET_MS,
  createSqliteTableSql,
  packFields,
  quoteTable,
  unpackDestroyed,
  unpackFields,
  type SqlStatements,
} from '@coatcheck/session-core/sql';
import { unlocked } from './locks.ts';
import type { SqliteClient, SqliteStatement } from './options.ts';

/** The latest timestamp that a Date can represent. It stands for a record that never expires. */
const NEVER = 8.64e15;

/**
 * The statements of an SQLite database. SQLite runs in this process and blocks it, so no statement waits for a lock of another process: it
 * is tried again later, and other requests go on in between.
 *
 * @param open returns the open database. It may be another one than before.
 * @param timeoutMs the timeout of one operation, in milliseconds.
 */
export function sqliteStatements(open: () => SqliteClient, table: string, timeoutMs: number): SqlStatements {
  const texts = statementsOn(quoteTable(table));
  let database: SqliteClient;
  // Node.js keeps a database as long as it has a statement. Without WeakRef, a client of the app would never be garbage-collected.
  const prepared = new Map<string, WeakRef<SqliteStatement>>();

  const prepare = (sql: string): SqliteStatement => {
    const known = prepared.get(sql)?.deref();
    if (known) return known;
    const statement = database.prepare(sql);
    prepared.set(sql, new WeakRef(statement));
    return statement;
  };

  /** Runs `work` on the open database. It is synchronous, so nothing else of this process can come in between. */
  const run = <Result>({ signal }: StoreCall, work: () => Result): Promise<Result> =>
    unlocked(signal, timeoutMs, () => {
      const current = open();
      if (current !== database) prepared.clear();
      database = current;
      try {
        return work();
      } catch (error) {
        // The app may have closed its database and opened it again. Then they do not work any more.
        prepared.clear();
        throw error;
      }
    });

  /** Runs `work` as one transaction. */
  const transact = <Result>(call: StoreCall, work: () => Result): Promise<Result> =>
    run(call, () => {
      // Takes the lock before it reads. Otherwise, two processes that have read the same record could not both write.
      prepare('BEGIN IMMEDIATE').run();
      try {
        const result = work();
        prepare('COMMIT').run();
        return result;
      } catch (error) {
        rollBack(database);
        throw error;
      }
    });

  const load = (key: string): Row | undefined => {
    const row = prepare(texts.load).get(key, Date.now());
    if (!row) return undefined;
    return {
      until: Number(column(row, 'until', 0)),
      expires: Number(column(row, 'expires', 1)),
      fields: column(row, 'fields', 2) as string | null,
    };
  };

  /** Replaces the row `before`, or stores the first one. The bucket is written only if it changes, because its index costs as much as the row. */
  const save = (key: string, before: Row | undefined, { until, expires, fields }: Row): void => {
    const end = Math.min(until, NEVER);
    const values = [end, Math.min(expires, NEVER), fields, key];
    if (before && bucketOf(before.until) === bucketOf(end)) {
      prepare(texts.update).run(...values);
    } else prepare(texts.upsert).run(...values, bucketOf(end));
  };

  const read = (key: string, call: StoreCall): Promise<Fields | null> =>
    run(call, () => {
      const row = prepare(texts.read).get(key, Date.now());
      return row ? unpackFields(column(row, 'fields') as string) : null;
    });

  const touch = (key: string, idleMs: number, call: StoreCall): Promise<Fields | null> =>
    transact(call, () => {
      const row = load(key);
      if (!row || row.fields === null) return null;
      const until = Math.min(row.expires, Date.now() + idleMs);
      const bucket = bucketOf(until);
      if (bucket === bucketOf(row.until)) prepare(texts.touch).run(until, key);
      else prepare(texts.touchAndMove).run(until, bucket, key);
      return unpackFields(row.fields);
    });

  return {
    read: (key, call) => (call.extendIdleMs === undefined ? read(key, call) : touch(key, call.extendIdleMs, call)),

    patch: (key, change, call) =>
      transact(call, () => {
        const row = load(key);
        if (row?.fields === null) return 'destroyed';
        const changed = applyChange(row ? toRecord(row.fields, row) : null, change, Date.now());
        if (typeof changed === 'string') return changed;
        save(key, row, { until: endOf(changed), expires: changed.expires, fields: packFields(changed.fields) });
        return 'applied';
      }),

    destroy: (key, tombstoneMs, call) =>
      transact(call, () => {
        const row = load(key);
        const end = Date.now() + tombstoneMs;
        const until = row?.fields === null ? Math.max(row.until, end) : end;
        save(key, row, { until, expires: until, fields: null });
        if (!row) return null;
        return row.fields === null ? 'destroyed' : unpackDestroyed(row.fields);
      }),

    // About 0.1 ms. Requests wait while SQLite is at work.
    sweepLimit: 16,
    sweep: (limit, call) =>
      run(call, () => {
        const { changes } = prepare(texts.sweep).run(bucketOf(Date.now()), limit);
        return Number(changes);
      }),

    createTable: (call) => transact(call, () => void database.exec(createSqliteTableSql(table))),
    isTableMissing: (error) => /no such table/.test((error as Error).message),

    readLegacy: (key, call) =>
      run(call, () => {
        // The table is that of unstorage's driver `db0`.
        if (!prepare(`SELECT 1 FROM sqlite_master WHERE name = 'unstorage'`).get()) return undefined;
        const row = prepare(`SELECT value FROM unstorage WHERE key = ?`).get(key);
        return row ? column(row, 'value') : undefined;
      }),
    removeLegacy: (key, call) => transact(call, () => void prepare(`DELETE FROM unstorage WHERE key = ?`).run(key)),
  };
}

/** The statements on a table, whose name is quoted. */
function statementsOn(table: string) {
  return {
    read: `SELECT fields FROM ${table} WHERE key = ? AND until > ? AND fields IS NOT NULL`,
    load: `SELECT until, expires, fields FROM ${table} WHERE key = ? AND until > ?`,
    update: `UPDATE ${table} SET until = ?, expires = ?, fields = ? WHERE key = ?`,
    upsert: `INSERT INTO ${table} (until, expires, fields, key, bucket) VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE
      SET until = excluded.until, expires = excluded.expires, fields = excluded.fields, bucket = excluded.bucket`,
    touch: `UPDATE ${table} SET until = ? WHERE key = ?`,
    touchAndMove: `UPDATE ${table} SET until = ?, bucket = ? WHERE key = ?`,
    sweep: `DELETE FROM ${table} WHERE rowid IN (SELECT rowid FROM ${table} WHERE bucket < ? LIMIT ?)`,
  };
}

/** The ten minutes in which a record expires. */
function bucketOf(until: number): number {
  return Math.floor(until / BUCKET_MS);
}

/** A row of the table. */
interface Row {
  until: number;
  expires: number;
  /** Null for a tombstone. */
  fields: string | null;
}

/** A column of a row, by its name and its position. The app's client may return rows as arrays, and integers as BigInts. */
function column(row: unknown, name: string, index = 0): unknown {
  return Array.isArray(row) ? row[index] : (row as Record<string, unknown>)[name];
}

function toRecord(fields: string, { until, expires }: Row): StoredRecord {
  const timestamp = (ms: number): number => (ms >= NEVER ? Infinity : ms);
  return { fields: unpackFields(fields), expires: timestamp(expires), idleUntil: timestamp(until) };
}

function rollBack(database: SqliteClient): void {
  try {
    database.exec('ROLLBACK');
  } catch {
    // SQLite has rolled back by itself, as it does when the disk is full.
  }
}
