import { createError, type DriverStore, type ReadEnv, type Resolved } from '@coatcheck/session-core/driver';
import { DEFAULT_TABLE, sqlStore } from '@coatcheck/session-core/sql';
import { useClient, type Connection } from './connection.ts';
import { DRIVER, type PostgresRuntimeConfig } from './options.ts';
import { postgresStatements } from './statements.ts';

/** Opens the store, with connections of its own or with a client of the app. */
export async function openStore(
  options: Resolved<PostgresRuntimeConfig>,
  { env, timeoutMs }: { env: ReadEnv; timeoutMs: number },
): Promise<DriverStore> {
  const { client, url, tls, maxConnections, table = DEFAULT_TABLE, createTable = true } = options;
  if (client && (url ?? tls ?? maxConnections) !== undefined) {
    throw createError(DRIVER, 'configuration', 'With `client`, leave out `url`, `tls` and `maxConnections`.');
  }
  const connection = client ? useClient(client, timeoutMs) : await connect(options, env, timeoutMs);
  return sqlStore(postgresStatements(connection, table, timeoutMs), { driver: DRIVER, table, createTable, timeoutMs });
}

/** Imports pg when it is needed. With a client of the app, the driver also runs where there is no pg. */
async function connect(options: Resolved<PostgresRuntimeConfig>, env: ReadEnv, timeoutMs: number): Promise<Connection> {
  const [{ openPool }, { targetOf }] = await Promise.all([import('./pool.ts'), import('./target.ts')]);
  const target = targetOf(options, env);
  try {
    return openPool(target, timeoutMs);
  } catch (cause) {
    // pg has read the files that the URL names.
    throw createError(DRIVER, 'configuration', `DATABASE_URL or \`url\`: ${(cause as Error).message}.`, { cause });
  }
}
