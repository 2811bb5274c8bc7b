import { createError, retry, type DriverStore, type ReadEnv, type Resolved } from '@coatcheck/session-core/driver';
import { DEFAULT_TABLE, sqliteBatch, sqlStore, type RunBatch } from '@coatcheck/session-core/sql';
import { DRIVER, explain } from './errors.ts';
import { targetOf, type LibsqlClient, type LibsqlRuntimeConfig } from './options.ts';

/** The longest pause before a batch is sent again, in milliseconds. */
const RETRY_MS = 100;

/** Opens the store on the server of the options, or with a client of the app. */
export async function openStore(
  { client, table = DEFAULT_TABLE, createTable = true, ...options }: Resolved<LibsqlRuntimeConfig>,
  { env, timeoutMs }: { env: ReadEnv; timeoutMs: number },
): Promise<DriverStore> {
  if (client && (options.url ?? options.authToken) !== undefined) {
    throw createError(DRIVER, 'configuration', 'With `client`, leave out `url` and `authToken`.');
  }
  const connect = client ? () => client : await connector(options, env);
  return sqlStore(sqliteBatch(table, batchesOn(connect, timeoutMs)), { driver: DRIVER, table, createTable, timeoutMs });
}

type Connect = (signal: AbortSignal) => LibsqlClient;

/** Creates a client for each batch, which costs nothing: it opens no connection, and its request ends with the signal of the operation. */
async function connector(options: Resolved<LibsqlRuntimeConfig>, env: ReadEnv): Promise<Connect> {
  const target = targetOf(options, env);
  // This module uses only `fetch`, and runs everywhere.
  const { createClient } = await import('@libsql/client/http');
  return (signal) =>
    createClient({
      url: target.url,
      ...(target.authToken !== undefined && { authToken: target.authToken }),
      fetch: (request: Request) => fetch(request, { signal }),
    });
}

/** Runs batches on a server. A batch is a transaction with the write lock; a single statement is one by itself. */
function batchesOn(connect: Connect, timeoutMs: number): RunBatch {
  return (statements, { call: { signal }, isRepeatable }) => {
    const attempt = async (): Promise<unknown[][]> => {
      const client = connect(signal);
      const sent = statements.map(({ sql, parameters }) => ({ sql, args: [...parameters] }));
      const answers = sent.length === 1 ? [await client.execute(sent[0]!)] : await client.batch(sent, 'write');
      return answers.map(({ rows }) => rows);
    };
    const judge = (error: unknown) =>
      // The request was ended by the deadline, which the engine reports. If it was a write, an earlier error would say that nothing was sent.
      signal.aborted ? { error: signal.reason as unknown, transient: isRepeatable } : explain(error, isRepeatable);
    return retry(attempt, { signal, forMs: timeoutMs / 2, pauseMs: RETRY_MS, judge });
  };
}
