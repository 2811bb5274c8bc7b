import { DEFAULT_TABLE, quoteTable } from './options.ts';

/** A sweep removes the records of whole buckets of time, so that a write that moves the expiry a little does not change the index. */
export const BUCKET_MS = 600_000;

/**
 * The SQL statements that create the table of the sessions and its index in SQLite, for your own migrations. They do nothing if it exists.
 *
 * @param table the option `table` of the driver.
 * @throws an Error if the name is not a valid `table` option.
 */
export function createSqliteTableSql(table: string = DEFAULT_TABLE): string {
  return sqliteTable(table)
    .map((statement) => `${statement};\n`)
    .join('');
}

/** The same statements, one by one. */
export function sqliteTable(table: string): string[] {
  const [schema] = table.includes('.') ? table.split('.') : [];
  // In SQLite, the name of an index has the schema, and the name of its table has none.
  const index = quoteTable(table, '_bucket');
  return [
    `CREATE TABLE IF NOT EXISTS ${quoteTable(table)} (
  key TEXT PRIMARY KEY NOT NULL,
  until INTEGER NOT NULL,   -- when the record expires, in epoch milliseconds: with its longest-lived field, or at its idle limit
  expires INTEGER NOT NULL, -- when its longest-lived field expires
  fields TEXT,              -- a JSON object; NULL for a tombstone, which rejects writes to a destroyed session
  bucket INTEGER NOT NULL   -- until, in units of ${BUCKET_MS / 60_000} minutes
)`,
    `CREATE INDEX IF NOT EXISTS ${index} ON ${quoteTable(schema === undefined ? table : table.slice(schema.length + 1))} (bucket)`,
  ];
}

/** Matches the messages of SQLite about a table, an index or a view with the name of the table that is something else. */
export const UNFIT_TABLE: RegExp =
  /no such column|has no column|object name reserved|there is already|does not match any PRIMARY KEY|because it is a view|NOT NULL constraint failed/;

/** Whether a statement failed because there is no such table. */
export function isTableMissing(error: unknown): boolean {
  return error instanceof Error && /no such table/.test(error.message);
}

/** Handles the error of a statement on a table that need not exist. */
export function ignoreMissingTable(error: unknown): undefined {
  if (!isTableMissing(error)) throw error;
}
