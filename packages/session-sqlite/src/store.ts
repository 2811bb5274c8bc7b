import {
  createError,
  type DriverStore,
  legacyFiles,
  type LegacySessions,
  type Resolved,
} from '@coatcheck/session-core/driver';
import { DEFAULT_TABLE, sqlStore } from '@coatcheck/session-core/sql';
import { DRIVER, type SqliteRuntimeConfig } from './options.ts';
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
  // Loaded here, because `node:fs` takes milliseconds to load.
  const { databaseFile } = await import('./file.ts');
  const { database, close } = await databaseFile(file);
  const store = sqlStore({ ...sqliteStatements(database, table, timeoutMs), close: async () => close() }, options);
  return { ...store, legacySessions: withFiles(store.legacySessions!) };
}

/** The sessions of unstorage's driver `db0`, and those of Astro's default driver. */
function withFiles(table: LegacySessions): LegacySessions {
  const files = legacyFiles(DRIVER);
  return {
    read: async (...session) => (await table.read(...session)) ?? files.read(...session),
    async remove(...session) {
      await table.remove(...session);
      // An older copy there would otherwise bring back a session that was destroyed.
      await files.remove(...session);
    },
  };
}
