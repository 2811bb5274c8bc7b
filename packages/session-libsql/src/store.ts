import { createError, retry, type DriverStore, type ReadEnv, type Resolved } from '@coatcheck/session-core/driver';
import { DEFAULT_TABLE, sqliteBatch, sqlStore, type RunBatch } from '@coatcheck/session-core/sql';
import { explain } from './errors.ts';
import {
  DRIVER,
  type LibsqlClient,
  type LibsqlRuntimeConfig,
  type LibsqlStatement,
  type Target,
  targetOf,
} from './options.ts';

/** The longest pause before a batch is sent to a server again, in milliseconds. */
const RETRY_MS = 100;

/** A database that runs batches. */
export interface Database {
  /** Runs statements once. Several are a transaction with the write lock; a single one is a transaction by itself. */
  send(statements: LibsqlStatement[], signal: AbortSignal): Promise<{ rows: unknown[] }[]>;
  /** The longest pause before a batch is sent again, in milliseconds. */
  retryMs: number;
}

/** Opens the store in the database of the options, or with a client of the app. */
export async function openStore(
  { client, table = DEFAULT_TABLE, createTable = true, ...options }: Resolved<LibsqlRuntimeConfig>,
  { env, timeoutMs }: { env: ReadEnv; timeoutMs: number },
): Promise<DriverStore> {
  if (client && (options.url ?? options.authToken) !== undefined) {
    throw createError(DRIVER, 'configuration', 'With `client`, leave out `url` and `authToken`.');
  }
  const database = client ? databaseOf(() => client) : await connect(targetOf(options, env));
  return sqlStore(sqliteBatch(table, batchesOn(database, timeoutMs)), {
    driver: DRIVER,
    table,
    createTable,
    timeoutMs,
  });
}

async function connect({ url, authToken }: Target): Promise<Database> {
  if (url.startsWith('file:')) return (await import('./file.ts')).openFile(url);
  // This module uses only `fetch`, and runs everywhere.
  const { createClient } = await import('@libsql/client/http');
  // A client for each batch costs nothing: it opens no connection, and its request ends with the signal of the operation.
  return databaseOf((signal) =>
    createClient({
      url,
      ...(authToken !== undefined && { authToken }),
      // A redirect could send the values to another server.
      fetch: (request: Request) => fetch(request, { signal, redirect: 'manual' }),
    }),
  );
}

function databaseOf(clientFor: (signal: AbortSignal) => LibsqlClient): Database {
  return {
    retryMs: RETRY_MS,
    async send(statements, signal) {
      const client = clientFor(signal);
      return statements.length === 1 ? [await client.execute(statements[0]!)] : client.batch(statements, 'write');
    },
  };
}

function batchesOn({ send, retryMs }: Database, timeoutMs: number): RunBatch {
  return (statements, { call: { signal }, isRepeatable }) => {
    const sent = statements.map(({ sql, parameters }) => ({ sql, args: [...parameters] }));
    const attempt = async (): Promise<unknown[][]> => {
      const answers = await send(sent, signal);
      if (answers.length !== sent.length)
        throw new Error(`libSQL answered ${answers.length} of ${sent.length} statements`);
      return answers.map(({ rows }) => rows);
    };
    const judge = (error: unknown) =>
      // The request was ended by the deadline, which the engine reports. If it was a write, an earlier error would say that nothing was sent.
      signal.aborted ? { error: signal.reason as unknown, transient: isRepeatable } : explain(error, isRepeatable);
    return retry(attempt, { signal, forMs: timeoutMs / 2, pauseMs: retryMs, judge });
  };
}
