import type { Resolved } from '../../config/option.ts';
import type { DriverStore } from '../../contract/legacy.ts';
import { retry, type Verdict } from '../../platform/retry.ts';
import { type ErrorRule, explainBy, type Failure } from '../error-rules.ts';
import { DEFAULT_TABLE, type SqlOptions } from './options.ts';
import { BATCH_RULES, type BatchStatement, type RunBatch, sqliteBatch } from './sqlite-batch.ts';
import { isTableMissing } from './sqlite-table.ts';
import { sqlStore } from './store.ts';

/** An SQLite database that takes batches of statements, such as D1. */
export interface BatchDatabase {
  /**
   * Sends statements once. A single one is a transaction by itself; several are one transaction with the write lock. Resolves to the rows of
   * each.
   */
  send(statements: readonly BatchStatement[], signal: AbortSignal): Promise<readonly (readonly unknown[])[]>;
  /**
   * The longest pause before statements are sent again, in milliseconds.
   *
   * @default 100
   */
  retryMs?: number;
}

/** What the errors of a client mean. */
export interface BatchErrors {
  /** By their messages. The rules that every such database has are added. */
  rules: readonly ErrorRule[];
  /** Cuts from a message what it quotes of an answer: that may be the request, with the token and the values. */
  withoutQuotes(message: string): string;
  /**
   * What an error without a rule means.
   *
   * @param isRepeatable whether the statements may be sent again if it is unknown whether the database has run them.
   */
  explainOther(error: Error, isRepeatable: boolean): Failure;
}

/** Options of `batchStore`: the driver's own, and what it knows besides. */
export interface BatchStoreOptions extends Resolved<SqlOptions> {
  /** The driver's name, for errors. */
  driver: string;
  /** The timeout of one operation, in milliseconds. */
  timeoutMs: number;
}

/** Creates a store on a database that takes batches. Sends a batch again for up to half of the timeout if that is safe. */
export function batchStore(
  { send, retryMs = 100 }: BatchDatabase,
  { rules, withoutQuotes, explainOther }: BatchErrors,
  { driver, timeoutMs, table = DEFAULT_TABLE, createTable = true }: BatchStoreOptions,
): DriverStore {
  const run: RunBatch = (statements, { call: { signal }, isRepeatable }) => {
    const attempt = async (): Promise<readonly (readonly unknown[])[]> => {
      const answers = await send(statements, signal);
      if (answers.length === statements.length) return answers;
      throw new Error('The database has not answered each statement.');
    };
    const judge = (error: unknown): Verdict => {
      // The request was ended by the deadline, which the engine reports. If it was a write, an earlier error would say that nothing was sent.
      if (signal.aborted) return { error: signal.reason, transient: isRepeatable };
      const original = error instanceof Error ? error : new Error('The client threw something else.');
      const message = withoutQuotes(original.message);
      const cause = message === original.message ? original : new Error(message);
      // The name of the table follows, which could look like another error.
      if (isTableMissing(cause)) return { error: cause };
      return explainBy(driver, [...rules, ...BATCH_RULES], message, cause) ?? explainOther(cause, isRepeatable);
    };
    return retry(attempt, { signal, forMs: timeoutMs / 2, pauseMs: retryMs, judge });
  };
  return sqlStore(sqliteBatch(table, run), { driver, table, createTable, timeoutMs });
}
