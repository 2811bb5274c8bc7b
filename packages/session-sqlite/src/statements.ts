import { applyChange, endOf, type Fields, retry, type StoreCall } from '@coatcheck/session-core/driver';
import {
  BUCKET_MS,
  createSqliteTableSql,
  ignoreMissingTable,
  isTableMissing,
  packFields,
  quoteTable,
  unpackDestroyed,
  unpackFields,
  type SqlStatements,
} from '@coatcheck/session-core/sql';
import { explain } from './errors.ts';
import type { SqliteClient, SqliteStatement } from './options.ts';

/** The longest pause before a statement that met a lock is tried again, in milliseconds. */
const RETRY_MS = 5;

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

  /**
   * Runs `work` on the open database, and again while the database is locked, for most of the timeout. It is synchronous, so nothing else of
   * this process can come in between.
   */
  const run = <Result>({ signal }: StoreCall, work: () => Result): Promise<Result> => {
    const attempt = (): Result => {
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
    };
    return retry(attempt, { signal, forMs: timeoutMs * 0.9, pauseMs: RETRY_MS, judge: explain });
  };

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
    const columns = columnsOf(row);
    return { fields: columns[0] as string | null, until: Number(columns[1]) };
  };

  /** Stores a row in place of the live one, `before`. There may also be an expired one. */
  const save = (key: string, before: Row | undefined, { fields, until }: Row, expires: number): void => {
    const end = Math.min(until, NEVER);
    prepare(texts.save).run(key, end, Math.min(expires, NEVER), fields, bucketOf(end));
    if (!before || bucketOf(before.until) !== bucketOf(end)) prepare(texts.move).run(key);
  };

  const read = (key: string): Fields | null => {
    const row = prepare(texts.read).get(key, Date.now());
    return row ? unpackFields(columnsOf(row)[0] as string) : null;
  };

  return {
    read: (key, call) => {
      const { extendIdleMs } = call;
      if (extendIdleMs === undefined) return run(call, () => read(key));
      return transact(call, () => {
        const fields = read(key);
        if (!fields) return null;
        prepare(texts.touch).run(Date.now() + extendIdleMs, key);
        prepare(texts.move).run(key);
        return fields;
      });
    },

    patch: (key, change, call) =>
      transact(call, () => {
        const row = load(key);
        if (row?.fields === null) return 'destroyed';
        // The change replaces both timestamps.
        const before = row ? { fields: unpackFields(row.fields), expires: row.until, idleUntil: row.until } : null;
        const changed = applyChange(before, change, Date.now());
        if (typeof changed === 'string') return changed;
        save(key, row, { fields: packFields(changed.fields), until: endOf(changed) }, changed.expires);
        return 'applied';
      }),

    destroy: (key, tombstoneMs, call) =>
      transact(call, () => {
        const row = load(key);
        const end = Date.now() + tombstoneMs;
        const until = row?.fields === null ? Math.max(row.until, end) : end;
        save(key, row, { fields: null, until }, until);
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
    isTableMissing,

    // The table is that of unstorage's driver `db0`. Without it, there are no legacy sessions.
    readLegacy: (key, call) =>
      run(call, () => {
        const row = prepare(`SELECT value FROM unstorage WHERE key = ?`).get(key);
        return row ? columnsOf(row)[0] : undefined;
      }).catch(ignoreMissingTable),
    removeLegacy: (key, call) =>
      transact(call, () => void prepare(`DELETE FROM unstorage WHERE key = ?`).run(key)).catch(ignoreMissingTable),
  };
}

/** The statements on a table, whose name is quoted. */
function statementsOn(table: string) {
  return {
    read: `SELECT fields FROM ${table} WHERE key = ? AND until > ? AND fields IS NOT NULL`,
    load: `SELECT fields, until FROM ${table} WHERE key = ? AND until > ?`,
    save: `INSERT INTO ${table} (key, until, expires, fields, bucket) VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE
      SET until = excluded.until, expires = excluded.expires, fields = excluded.fields`,
    touch: `UPDATE ${table} SET until = min(expires, ?) WHERE key = ?`,
    // Writing the bucket writes its index, which costs as much as the row. So the other statements leave it alone, and this one writes it only
    // if it is another one.
    move: `UPDATE ${table} SET bucket = until / ${BUCKET_MS} WHERE key = ? AND bucket <> until / ${BUCKET_MS}`,
    sweep: `DELETE FROM ${table} WHERE rowid IN (SELECT rowid FROM ${table} WHERE bucket < ? LIMIT ?)`,
  };
}

/** The ten minutes in which a record expires. */
function bucketOf(until: number): number {
  return Math.floor(until / BUCKET_MS);
}

/** A row of the table. */
interface Row {
  /** Null for a tombstone. */
  fields: string | null;
  until: number;
}

/** The columns of a row. The app's client may return rows as arrays, and integers as BigInts. */
function columnsOf(row: unknown): unknown[] {
  return Object.values(row as object);
}

function rollBack(database: SqliteClient): void {
  try {
    database.exec('ROLLBACK');
  } catch {
    // SQLite has rolled back by itself, as it does when the disk is full.
  }
}
