import { createError, type DriverStore, type ReadEnv, type Resolved } from '@coatcheck/session-core/driver';
import { DEFAULT_TABLE, sqlStore } from '@coatcheck/session-core/sql';
import { openPool, useClient, type Connection } from './connection.ts';
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
  const connection = client ? useClient(client, timeoutMs) : await connect(targetOf(options, env), timeoutMs);
  return sqlStore(postgresStatements(connection, table, timeoutMs), { driver: DRIVER, table, createTable, timeoutMs });
}

async function connect(target: ReturnType<typeof targetOf>, timeoutMs: number): Promise<Connection> {
  const { default: pg } = await import('pg');
  try {
    return openPool(pg, target, timeoutMs);
  } catch (cause) {
    // pg has read the files that the URL names.
    throw createError(DRIVER, 'configuration', `DATABASE_URL or \`url\`: ${(cause as Error).message}.`, { cause });
  }
}
