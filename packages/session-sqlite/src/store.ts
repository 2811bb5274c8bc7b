import { createError, type DriverStore, type Resolved } from '@coatcheck/session-core/driver';
import { DEFAULT_TABLE, sqlStore } from '@coatcheck/session-core/sql';
import { DRIVER } from './errors.ts';
import { databaseFile } from './file.ts';
import type { SqliteRuntimeConfig } from './options.ts';
import { sqliteStatements } from './statements.ts';

/** Opens the store in a file, or in a database that the app has opened. */
export async function openStore(
  { client, file, table = DEFAULT_TABLE, createTable = true }: Resolved<SqliteRuntimeConfig>,
  { timeoutMs }: { timeoutMs: number },
): Promise<DriverStore> {
  if (client && file !== undefined) throw createError(DRIVER, 'configuration', 'Set `file` or `client`, not both.');
  const options = { driver: DRIVER, table, createTable, timeoutMs };
  if (client)
    return sqlStore(
      sqliteStatements(() => client, table, timeoutMs),
      options,
    );
  const { database, close } = await databaseFile(file);
  return sqlStore({ ...sqliteStatements(database, table, timeoutMs), close: async () => close() }, options);
}
