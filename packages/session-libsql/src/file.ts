import { createError } from '@coatcheck/session-core/driver';
import type { BatchDatabase } from '@coatcheck/session-core/sql';
import { DRIVER, type LibsqlClient } from './options.ts';
import { sendWith } from './send.ts';

/** The longest pause before a batch is tried again, in milliseconds. Another process has the lock for less than that. */
const RETRY_MS = 5;

/** Fails like a batch while another process has the lock. Unlike a batch, it leaves no statement open then. */
const TRY_LOCK = 'BEGIN IMMEDIATE; COMMIT';

/** Matches the errors of a statement that met the lock of another process or transaction. */
const LOCKED = /SQLITE_BUSY|is locked/;

/** The part of a client for files that the driver uses. */
interface FileClient extends LibsqlClient {
  executeMultiple(sql: string): Promise<void>;
  close(): void;
}

/**
 * A database in a file. Nothing is opened yet. SQLite runs in this process and blocks it, so no statement waits for a lock of another
 * process.
 *
 * @throws {SessionDriverError} `configuration` where native code cannot be loaded.
 */
export async function openFile(url: string): Promise<BatchDatabase> {
  const createClient = await loadNative();
  let current: Promise<FileClient> | undefined;

  const open = async (): Promise<FileClient> => {
    const client = createClient({ url, concurrency: 1 });
    // Readers and a writer do not wait for each other.
    await client.executeMultiple('PRAGMA journal_mode = WAL').catch((error: unknown) => {
      client.close();
      throw error;
    });
    return client;
  };

  const connect = (): Promise<FileClient> => {
    current ??= open().catch((error: unknown) => {
      current = undefined;
      throw error;
    });
    return current;
  };

  return {
    retryMs: RETRY_MS,
    async send(statements) {
      const client = await connect();
      const isRead = statements.length === 1 && statements[0]!.sql.startsWith('SELECT');
      if (!isRead) await client.executeMultiple(TRY_LOCK);
      return sendWith(client, statements).catch((error: unknown) => {
        // A statement that meets a lock stays open until it is garbage-collected. After the next read, this client would see no later
        // changes of other processes until then. Operations that are under way go on in it.
        if (LOCKED.test(String(error))) current = undefined;
        throw error;
      });
    },
  };
}

/** Loads the client for files. Where there is no native code, such as in Workers, it is one that refuses them. */
async function loadNative(): Promise<(config: { url: string; concurrency: number }) => FileClient> {
  try {
    const { createClient } = await import('@libsql/client');
    return createClient;
  } catch (cause) {
    throw createError(
      DRIVER,
      'configuration',
      'The native code of `@libsql/client`, which a file needs, cannot be loaded. If this is a built site, install `@libsql/client` in it.',
      { cause },
    );
  }
}
