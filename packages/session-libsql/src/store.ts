import { createError, type DriverStore, type ReadEnv, type Resolved } from '@coatcheck/session-core/driver';
import { type BatchDatabase, batchStore } from '@coatcheck/session-core/sql';
import { libsqlErrors } from './errors.ts';
import { DRIVER, type LibsqlClient, type LibsqlRuntimeConfig, type Target, targetOf } from './options.ts';
import { sendWith } from './send.ts';

/** Opens the store in the database of the options, or with a client of the app. */
export async function openStore(
  { client, ...options }: Resolved<LibsqlRuntimeConfig>,
  { env, timeoutMs }: { env: ReadEnv; timeoutMs: number },
): Promise<DriverStore> {
  if (client && (options.url ?? options.authToken) !== undefined) {
    throw createError(DRIVER, 'configuration', 'With `client`, leave out `url` and `authToken`.');
  }
  const database = client ? databaseOf(() => client) : await connect(targetOf(options, env));
  return batchStore(database, libsqlErrors, { ...options, driver: DRIVER, timeoutMs });
}

async function connect({ url, authToken }: Target): Promise<BatchDatabase> {
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

function databaseOf(clientFor: (signal: AbortSignal) => LibsqlClient): BatchDatabase {
  return { send: (statements, signal) => sendWith(clientFor(signal), statements) };
}
