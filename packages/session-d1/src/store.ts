import { createError, type DriverStore, type Resolved, type SqlOptions } from '@coatcheck/session-core/driver';
import { type BatchStatement, batchStore } from '@coatcheck/session-core/sql';
import { findDatabase } from './database.ts';
import { d1Errors } from './errors.ts';
import { DRIVER, type D1Client, type D1RuntimeConfig } from './options.ts';

/** Opens the store, in the database that the options name or contain. */
export async function openStore(
  { client, database, ...options }: Resolved<D1RuntimeConfig>,
  { timeoutMs }: { timeoutMs: number },
): Promise<DriverStore> {
  if (client && database !== undefined) {
    throw createError(DRIVER, 'configuration', 'Set `database` or `client`, not both.');
  }
  return d1Store(client ?? (await findDatabase(database)), options, timeoutMs);
}

/**
 * A store in a D1 database. The options are those of the driver. All queries go to the primary, because D1 uses replicas only for queries of
 * `withSession`: a replica that lags behind would show a session that was destroyed.
 */
export function d1Store(database: D1Client, options: Resolved<SqlOptions>, timeoutMs: number): DriverStore {
  const send = async (statements: readonly BatchStatement[]): Promise<unknown[][]> => {
    const bound = statements.map(({ sql, parameters }) => database.prepare(sql).bind(...parameters));
    const answers = await database.batch(bound as never[]);
    return answers.map(({ results }) => results);
  };
  return batchStore({ send }, d1Errors, { ...options, driver: DRIVER, timeoutMs });
}
