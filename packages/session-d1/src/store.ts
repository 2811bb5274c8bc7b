import type { DriverStore, Resolved, SqlOptions } from '@coatcheck/session-core/driver';
import { type BatchStatement, batchStore } from '@coatcheck/session-core/sql';
import { d1Errors, DRIVER } from './errors.ts';
import type { D1Client } from './options.ts';

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
