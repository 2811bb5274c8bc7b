import type { DriverStore, ReadEnv, Resolved } from '@coatcheck/session-core/driver';
import { DEFAULT_TABLE, sqlStore } from '@coatcheck/session-core/sql';
import { openPool, useClient } from './connection.ts';
import { DRIVER } from './errors.ts';
import type { PostgresRuntimeConfig } from './options.ts';
import { postgresStatements } from './statements.ts';
import { targetOf } from './target.ts';

/** Opens the store, with connections of its own or with a client of the app. */
export async function openStore(
  options: Resolved<PostgresRuntimeConfig>,
  { env, timeoutMs }: { env: ReadEnv; timeoutMs: number },
): Promise<DriverStore> {
  const { client, table = DEFAULT_TABLE, createTable = true } = options;
  const connection = client
    ? useClient(client, timeoutMs)
    : openPool((await import('pg')).default, targetOf(options, env), timeoutMs);
  return sqlStore(postgresStatements(connection, table), { driver: DRIVER, table, createTable, timeoutMs });
}
