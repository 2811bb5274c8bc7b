import { dirname, resolve } from 'node:path';
import { createError, type StoreCall } from '@coatcheck/session-core/driver';
import type { DatabaseSync } from 'node:sqlite';
import { DRIVER } from './errors.ts';
import { unlocked } from './locks.ts';

/**
 * Opens a database file. It and its directory are created if they are missing, for their owner only.
 *
 * @param file the option `file`. A relative path is resolved when the server runs: the build may run in another directory.
 */
export async function openFile(
  file = '.sessions/sessions.db',
  timeoutMs: number,
  call: StoreCall,
): Promise<DatabaseSync> {
  const [{ DatabaseSync }, { mkdir, open }] = await Promise.all([loadSqlite(), import('node:fs/promises')]);
  const path = resolve(file);
  const database = await unlocked(call.signal, timeoutMs, async () => {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    // SQLite gives its other files the mode of this one.
    await (await open(path, 'a', 0o600)).close();
    return new DatabaseSync(path);
  });
  await unlocked(call.signal, timeoutMs, () => {
    // Readers and a writer do not wait for each other.
    database.exec('PRAGMA journal_mode = WAL');
    // A power failure may lose the last transactions, but does not damage the database. A crash of the process loses nothing.
    database.exec('PRAGMA synchronous = NORMAL');
  });
  return database;
}

async function loadSqlite(): Promise<typeof import('node:sqlite')> {
  try {
    return await import('node:sqlite');
  } catch (cause) {
    throw createError(DRIVER, 'configuration', 'This Node.js has no `node:sqlite`. Use Node.js 22.13 or newer.', {
      cause,
    });
  }
}
