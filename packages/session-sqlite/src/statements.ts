import { applyChange, endOf, type StoredRecord } from '@coatcheck/session-core/driver';
import { packFields, quoteTable, unpackFields, type SqlStatements } from '@coatcheck/session-core/sql';
import { unlocked } from './locks.ts';
import type { SqliteClient, SqliteStatement } from './options.ts';
import { createTableSql } from './table.ts';

/** The latest timestamp that a Date can represent. It stands for a record that never expires. */
const NEVER = 8.64e15;

/** A row of the table, as far as the statements select it. */
interface Row {
  until: number;
  deadline: number;
  /** Null for a tombstone. */
  fields: string | null;
}

/**
 * The statements of an SQLite database. SQLite runs in this process and blocks it, so no statement waits for a lock of another process: it
 * is tried again later, and other requests go on in between.
 *
 * @param timeoutMs the timeout of one operation, in milliseconds.
 */
export function sqliteStatements(database: SqliteClient, table: string, timeoutMs: number): SqlStatements {
  const name = quoteTable(table);
  const prepared = new Map<string, SqliteStatement>();
  const prepare = (sql: string): SqliteStatement => {
    let statement = prepared.get(sql);
    if (!statement) prepared.set(sql, (statement = database.prepare(sql)));
    return statement;
  };

  const load = (key: string): Row | undefined =>
    (prepare(`SELECT until, deadline, fields FROM ${name} WHERE key = ? AND until > ?`).get(key, Date.now()) ??
      undefined) as Row | undefined;

  const save = (key: string, until: number, deadline: number, fields: string | null): void => {
    prepare(
      `INSERT INTO ${name} (key, until, deadline, fields) VALUES (?, ?, ?, ?)
       ON CONFLICT (key) DO UPDATE SET until = excluded.until, deadline = excluded.deadline, fields = excluded.fields`,
    ).run(key, Math.min(until, NEVER), Math.min(deadline, NEVER), fields);
  };

  /** Runs `work` as one transaction. It is synchronous, so nothing else of this process can come in between. */
  const transact = <Result>(work: () => Result): Result => {
    // Takes the lock before it reads. Otherwise, two processes that have read the same record could not both write.
    database.exec('BEGIN IMMEDIATE');
    try {
      const result = work();
      database.exec('COMMIT');
      return result;
    } catch (error) {
      rollBack(database);
      throw error;
    }
  };

  return {
    read: (key, { signal, extendIdleMs }) =>
      unlocked(signal, timeoutMs, () => {
        const now = Date.now();
        const row = (
          extendIdleMs === undefined
            ? prepare(`SELECT fields FROM ${name} WHERE key = ? AND until > ? AND fields IS NOT NULL`).get(key, now)
            : prepare(
                `UPDATE ${name} SET until = min(deadline, ?) WHERE key = ? AND until > ? AND fields IS NOT NULL RETURNING fields`,
              ).get(now + extendIdleMs, key, now)
        ) as { fields: string } | null | undefined;
        return row ? unpackFields(row.fields) : null;
      }),

    patch: (key, change, { signal }) =>
      unlocked(signal, timeoutMs, () =>
        transact(() => {
          const row = load(key);
          if (row?.fields === null) return 'destroyed';
          const current = row && toRecord(row.fields, row);
          const changed = applyChange(current ?? null, change, Date.now());
          if (typeof changed === 'string') return changed;
          save(key, endOf(changed), changed.expires, packFields(changed.fields));
          return 'applied';
        }),
      ),

    destroy: (key, tombstoneMs, { signal }) =>
      unlocked(signal, timeoutMs, () =>
        transact(() => {
          const row = load(key);
          const end = Date.now() + tombstoneMs;
          const until = row?.fields === null ? Math.max(row.until, end) : end;
          save(key, until, until, null);
          if (!row) return null;
          return row.fields === null ? 'destroyed' : unpackFields(row.fields);
        }),
      ),

    // About 0.1 ms. Requests wait while SQLite is at work.
    sweepLimit: 16,
    sweep: (limit, { signal }) =>
      unlocked(signal, timeoutMs, () => {
        const { changes } = prepare(
          `DELETE FROM ${name} WHERE rowid IN (SELECT rowid FROM ${name} WHERE until <= ? ORDER BY until LIMIT ?)`,
        ).run(Date.now(), limit);
        return Number(changes);
      }),

    createTable: ({ signal }) =>
      unlocked(signal, timeoutMs, () => transact(() => void database.exec(createTableSql(table)))),
    isTableMissing: (error) => /no such table/.test((error as Error).message),

    readLegacy: (key, { signal }) =>
      unlocked(signal, timeoutMs, () => {
        // The table is that of unstorage's driver `db0`.
        if (!prepare(`SELECT 1 FROM sqlite_master WHERE name = 'unstorage'`).get()) return undefined;
        const row = prepare(`SELECT value FROM unstorage WHERE key = ?`).get(key) as { value: unknown } | undefined;
        return row?.value;
      }),
    removeLegacy: (key, { signal }) =>
      unlocked(signal, timeoutMs, () => void prepare(`DELETE FROM unstorage WHERE key = ?`).run(key)),
  };
}

function toRecord(fields: string, { until, deadline }: Row): StoredRecord {
  const timestamp = (ms: number): number => (ms >= NEVER ? Infinity : ms);
  return { fields: unpackFields(fields), expires: timestamp(deadline), idleUntil: timestamp(until) };
}

function rollBack(database: SqliteClient): void {
  try {
    database.exec('ROLLBACK');
  } catch {
    // SQLite has rolled back by itself, as it does when the disk is full.
  }
}
