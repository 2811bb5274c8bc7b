import type { DriverStore, Resolved, StoreCall } from '@coatcheck/session-core/driver';
import { DEFAULT_TABLE, sqlStore } from '@coatcheck/session-core/sql';
import { DRIVER } from './errors.ts';
import { openFile } from './file.ts';
import type { SqliteRuntimeConfig } from './options.ts';
import { sqliteStatements } from './statements.ts';

/** Opens the store in a file, or in a database that the app has opened. */
export async function openStore(
  { client, file, table = DEFAULT_TABLE, createTable = true }: Resolved<SqliteRuntimeConfig>,
  { timeoutMs, call }: { timeoutMs: number; call: StoreCall },
): Promise<DriverStore> {
  const opened = client ? undefined : await openFile(file, timeoutMs, call);
  const statements = sqliteStatements(client ?? opened!, table, timeoutMs);
  const close = opened && (async (): Promise<void> => opened.close());
  return sqlStore({ ...statements, ...(close && { close }) }, { driver: DRIVER, table, createTable, timeoutMs });
}
