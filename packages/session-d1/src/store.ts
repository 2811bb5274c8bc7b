import { retry, type DriverStore } from '@coatcheck/session-core/driver';
import { DEFAULT_TABLE, sqliteBatch, sqlStore, type RunBatch } from '@coatcheck/session-core/sql';
import { DRIVER, explain } from './errors.ts';
import type { D1Client } from './options.ts';

/** The longest pause before a batch is sent again, in milliseconds. */
const RETRY_MS = 100;

/** A store in a D1 database. The options are those of the driver. */
export function d1Store(
  database: D1Client,
  { table = DEFAULT_TABLE, createTable = true }: { table?: string | undefined; createTable?: boolean | undefined },
  timeoutMs: number,
): DriverStore {
  const statements = sqliteBatch(table, batchesOn(database, timeoutMs));
  return sqlStore(statements, { driver: DRIVER, table, createTable, timeoutMs });
}

/**
 * Runs batches on D1. A batch is a transaction. All queries go to the primary, because D1 uses replicas only for queries of `withSession`: a
 * replica that lags behind would show a session that was destroyed.
 */
function batchesOn(database: D1Client, timeoutMs: number): RunBatch {
  return (statements, { call: { signal }, isRepeatable }) => {
    const attempt = async (): Promise<unknown[][]> => {
      const bound = statements.map(({ sql, parameters }) => database.prepare(sql).bind(...parameters));
      const answers = bound.length === 1 ? [await bound[0]!.all()] : await database.batch(bound as never[]);
      if (answers.length !== bound.length)
        throw new Error(`D1 answered ${answers.length} of ${bound.length} statements.`);
      return answers.map(({ results }) => results);
    };
    const judge = (error: unknown) => explain(error, isRepeatable);
    return retry(attempt, { signal, forMs: timeoutMs / 2, pauseMs: RETRY_MS, judge });
  };
}
