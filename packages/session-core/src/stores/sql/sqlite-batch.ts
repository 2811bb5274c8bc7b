import type { Change, StoreCall } from '../../contract/store.ts';
import type { ErrorRule } from '../error-rules.ts';
import { packFields, packName, unpackDestroyed, unpackFields } from './fields.ts';
import { quoteTable } from './options.ts';
import type { SqlStatements } from './store.ts';
import { BUCKET_MS, ignoreMissingTable, isTableMissing, sqliteTable, UNFIT_TABLE } from './sqlite-table.ts';

/** A statement and the values of its parameters `?1`, `?2` and so on. */
export interface BatchStatement {
  sql: string;
  parameters: readonly (string | number | null)[];
}

/** How to run a batch. */
export interface BatchOptions {
  call: StoreCall;
  /** Whether the batch has the same effect and result if it runs twice, so that it may be sent again when its outcome is unknown. */
  isRepeatable: boolean;
}

/**
 * Runs statements as one transaction that reads the latest data: all of them or none, and nothing else in between. Resolves to the rows of
 * each, with their columns as properties.
 */
export type RunBatch = (
  statements: readonly BatchStatement[],
  options: BatchOptions,
) => Promise<readonly (readonly unknown[])[]>;

/** What errors of these statements mean that every such database has. */
export const BATCH_RULES: readonly ErrorRule[] = [
  {
    pattern: UNFIT_TABLE,
    code: 'configuration',
    message: 'The database has another table or index with this name. Set `table` to another name.',
  },
  {
    pattern: /malformed JSON/,
    code: 'refused',
    message: 'The stored record is corrupt, or a newer version wrote it.',
  },
];

/** The latest timestamp that a Date can represent. It stands for a record that never expires. */
const NEVER = 8.64e15;

/** How many records one statement of a sweep removes. A sweep after a write is one statement, because Workers limit their number per request. */
const SWEEP_LIMIT = 1000;

/** The time by the clock of the database, in epoch milliseconds. It stands still during a statement. */
const CLOCK = `CAST(round(unixepoch('subsec') * 1000) AS INTEGER)`;

/**
 * The statements of an SQLite database that runs elsewhere, such as D1. It has no interactive transactions, so the SQL itself applies a
 * change, as `applyChange` does in JavaScript. Each operation is one batch, and so one round trip.
 *
 * @param table the option `table`.
 */
export function sqliteBatch(table: string, run: RunBatch): SqlStatements {
  const texts = statementsOn(quoteTable(table));

  return {
    async read(key, call) {
      const idleMs = call.extendIdleMs;
      const statements: BatchStatement[] =
        idleMs === undefined
          ? [{ sql: texts.read, parameters: [key] }]
          : [
              { sql: texts.touch, parameters: [key, clamp(idleMs)] },
              { sql: texts.move, parameters: [key] },
            ];
      const [[row] = []] = await run(statements, { call, isRepeatable: true });
      return row ? unpackFields((row as { fields: string }).fields) : null;
    },

    async patch(key, change, call) {
      const [applied, , state] = await run(
        [
          { sql: texts.patch, parameters: parametersOf(key, change) },
          { sql: texts.move, parameters: [key] },
          { sql: texts.load, parameters: [key] },
        ],
        { call, isRepeatable: false },
      );
      if (applied!.length > 0) return 'applied';
      const row = state![0] as { fields: string | null } | undefined;
      if (row?.fields === null) return 'destroyed';
      if (row) {
        // A record that cannot be read is not changed either.
        unpackFields(row.fields);
        return 'conflict';
      }
      return change.mustExist ? 'missing' : 'conflict';
    },

    async destroy(key, tombstoneMs, call) {
      const [before] = await run(
        [
          { sql: texts.load, parameters: [key] },
          { sql: texts.destroy, parameters: [key, clamp(tombstoneMs)] },
          { sql: texts.move, parameters: [key] },
        ],
        { call, isRepeatable: false },
      );
      const row = before![0] as { fields: string | null } | undefined;
      if (!row) return null;
      return row.fields === null ? 'destroyed' : unpackDestroyed(row.fields);
    },

    sweepLimit: SWEEP_LIMIT,
    sweepAfterWriteLimit: SWEEP_LIMIT,
    async sweep(limit, call) {
      const [removed] = await run([{ sql: texts.sweep, parameters: [limit] }], { call, isRepeatable: true });
      return removed!.length;
    },

    async createTable(call) {
      const statements = sqliteTable(table).map((sql) => ({ sql, parameters: [] }));
      await run(statements, { call, isRepeatable: true });
    },
    isTableMissing,

    // The table is that of unstorage's driver `db0`. Without it, there are no legacy sessions.
    async readLegacy(key, call) {
      const statement = { sql: 'SELECT value FROM unstorage WHERE key = ?1', parameters: [key] };
      const answers = await run([statement], { call, isRepeatable: true }).catch(ignoreMissingTable);
      return (answers?.[0]![0] as { value: unknown } | undefined)?.value;
    },
    async removeLegacy(key, call) {
      const statement = { sql: 'DELETE FROM unstorage WHERE key = ?1', parameters: [key] };
      await run([statement], { call, isRepeatable: true }).catch(ignoreMissingTable);
    },
  };
}

/** The statements on a table, whose name is quoted. */
function statementsOn(table: string) {
  const isLive = `key = ?1 AND until > ${CLOCK}`;
  return {
    read: `SELECT fields FROM ${table} WHERE ${isLive} AND fields IS NOT NULL`,
    // Of a tombstone, too.
    load: `SELECT fields FROM ${table} WHERE ${isLive}`,
    touch: `UPDATE ${table} SET until = min(expires, ${CLOCK} + CAST(?2 AS INTEGER)) WHERE ${isLive} AND fields IS NOT NULL RETURNING fields`,
    patch: patchOn(table),
    destroy: `INSERT INTO ${table} (key, until, expires, fields, bucket)
      SELECT ?1, ms, ms, NULL, ms / ${BUCKET_MS} FROM (SELECT ${CLOCK} + CAST(?2 AS INTEGER) AS ms) WHERE true
      ON CONFLICT (key) DO UPDATE SET fields = NULL,
        until = max(excluded.until, iif(fields IS NULL, until, 0)), expires = max(excluded.until, iif(fields IS NULL, until, 0))`,
    // Writing the bucket writes its index, which costs as much as the row. So the other statements leave it alone, and this one writes it only
    // if it is another one.
    move: `UPDATE ${table} SET bucket = until / ${BUCKET_MS} WHERE key = ?1 AND bucket <> until / ${BUCKET_MS}`,
    sweep: `DELETE FROM ${table} WHERE rowid IN (SELECT rowid FROM ${table} WHERE bucket < ${CLOCK} / ${BUCKET_MS} LIMIT ?1) RETURNING 1`,
  };
}

/**
 * The statement that applies a change. It returns a row if the change was applied. A `$` keeps its names apart from that of the table, which
 * has none. Without MATERIALIZED, SQLite computes some parts several times. `json_patch` takes time for each pair of fields, so it gets the
 * large object first, and nothing where there is nothing to do.
 */
function patchOn(table: string): string {
  return `WITH
    clock$ (ms) AS MATERIALIZED (SELECT ${CLOCK}),
    old$ (fields) AS MATERIALIZED (SELECT fields FROM ${table}, clock$ WHERE key = ?1 AND until > ms),
    old_field$ (name, value, type) AS (SELECT each.key, each.value, each.type FROM old$, json_each(old$.fields) AS each),
    removed$ (name) AS (
      SELECT value FROM json_each(?2)
      UNION ALL
      SELECT name FROM old_field$ WHERE name IN (SELECT value FROM json_each(?3)) AND ${expiryOf('value')} < CAST(?11 AS INTEGER)
    ),
    kept$ (fields) AS MATERIALIZED (
      SELECT CASE WHEN EXISTS (SELECT 1 FROM removed$)
        THEN json_patch(fields, (SELECT json_group_object(name, NULL) FROM removed$)) ELSE fields END
      FROM (SELECT coalesce((SELECT fields FROM old$), '{}') AS fields)
    ),
    base$ (fields) AS MATERIALIZED (
      SELECT CASE WHEN ?4 = '{}' THEN fields WHEN fields = '{}' THEN ?4 ELSE json_patch(?4, fields) END FROM kept$
      WHERE NOT EXISTS (SELECT 1 FROM old$ WHERE fields IS NULL OR json_type(fields) <> 'object')
        AND NOT EXISTS (SELECT 1 FROM old_field$ WHERE type <> 'text')
        AND CASE ?6 WHEN 'exists' THEN EXISTS (SELECT 1 FROM old$) WHEN 'new' THEN NOT EXISTS (SELECT 1 FROM old$) ELSE true END
        AND NOT EXISTS (
          SELECT 1 FROM json_each(?7) AS expected LEFT JOIN old_field$ ON old_field$.name = expected.key
          WHERE old_field$.value IS NOT expected.value
        )
    ),
    new$ (fields) AS MATERIALIZED (SELECT CASE WHEN fields = '{}' THEN ?5 ELSE json_patch(fields, ?5) END FROM base$),
    longest$ (ms) AS MATERIALIZED (
      SELECT coalesce(
        (SELECT max(coalesce(${expiryOf('each.value')} - CAST(?11 AS INTEGER), CAST(?9 AS INTEGER), ${NEVER})) FROM json_each(new$.fields) AS each
          WHERE substr(each.value, 1, 2) <> '-:'),
        CAST(?8 AS INTEGER),
        ${NEVER}
      ) FROM new$
    ),
    row$ (fields, until, expires) AS MATERIALIZED (
      SELECT fields, min(expires, clock$.ms + coalesce(CAST(?10 AS INTEGER), ${NEVER})), expires
      FROM new$, clock$, (SELECT max(0, min(${NEVER}, clock$.ms + longest$.ms)) AS expires FROM longest$, clock$)
    )
    INSERT INTO ${table} (key, until, expires, fields, bucket)
    SELECT ?1, until, expires, fields, CAST(until AS INTEGER) / ${BUCKET_MS} FROM row$ WHERE true
    ON CONFLICT (key) DO UPDATE SET until = excluded.until, expires = excluded.expires, fields = excluded.fields
    RETURNING 1`;
}

/** The expiry at the start of a field, as `expiryOf` in `codec/field.ts` reads it: NULL if it has none, or a corrupt one. */
function expiryOf(value: string): string {
  const head = `substr(${value}, 1, instr(${value}, ':') - 1)`;
  return `CASE WHEN rtrim(${head}, '0123456789') IN ('', '-') AND ${head} GLOB '*[0-9]' THEN CAST(${head} AS INTEGER) END`;
}

/** The parameters of the statement that applies a change. */
function parametersOf(key: string, change: Change): BatchStatement['parameters'] {
  const { set, ifAbsent, unset, purge = [], expect, lifetimeMs, defaultTtlMs, idleMs, now } = change;
  return [
    key,
    JSON.stringify(unset.map(packName)),
    JSON.stringify(purge.map(packName)),
    packFields(ifAbsent ?? new Map()),
    packFields(set),
    change.mustExist ? 'exists' : change.mustBeNew ? 'new' : null,
    packFields(expect ?? new Map()),
    lifetimeMs === 'never' ? null : clamp(lifetimeMs),
    defaultTtlMs === undefined ? null : clamp(defaultTtlMs),
    idleMs === undefined ? null : clamp(idleMs),
    now,
  ];
}

/** SQLite's integers end before those of JavaScript. */
function clamp(ms: number): number {
  return Math.min(ms, NEVER);
}
