import { closeSync, existsSync, mkdirSync, openSync, rmSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { createError } from '@coatcheck/session-core/driver';
import { cannotOpen } from './errors.ts';
import { DRIVER } from './options.ts';

/** How often to check that the file is still there, in milliseconds. */
const CHECK_EVERY_MS = 1000;

/** A database file. */
export interface DatabaseFile {
  /**
   * Returns the open database. Opens the file at first, and again when it was removed or replaced. It and its directory are created if they
   * are missing, for their owner only.
   */
  database(): DatabaseSync;
  /** Closes the database. It is not opened again. */
  close(): void;
}

/**
 * Creates a `DatabaseFile`. Nothing is opened yet.
 *
 * @param file the option `file`. A relative path is resolved when the server runs: the build may run in another directory.
 * @throws an error with the code `configuration` if this version of Node.js has no SQLite.
 */
export async function databaseFile(file = '.sessions/sessions.db'): Promise<DatabaseFile> {
  const sqlite = await import('node:sqlite').catch((cause: unknown) => {
    const message = 'This Node.js has no `node:sqlite`. Use Node.js 22.13 or newer.';
    throw createError(DRIVER, 'configuration', message, { cause });
  });
  const path = resolve(file);
  let opened: { database: DatabaseSync; inode: number | undefined } | undefined;
  let checkedAt = 0;
  let isClosed = false;

  const open = (): DatabaseSync => {
    createDirectory(dirname(path));
    createFile(path);
    const database = new sqlite.DatabaseSync(path);
    try {
      // Readers and a writer do not wait for each other.
      database.exec('PRAGMA journal_mode = WAL');
      // A power failure may lose the last transactions, but does not damage the database. A crash of the process loses nothing.
      database.exec('PRAGMA synchronous = NORMAL');
    } catch (error) {
      database.close();
      throw error;
    }
    opened = { database, inode: inodeOf(path) };
    return database;
  };

  const disconnect = (): void => {
    opened?.database.close();
    opened = undefined;
  };

  return {
    database() {
      if (isClosed) throw new Error('The database was closed.');
      // SQLite does not notice that its file was removed. What it then writes would be lost when the process ends.
      if (opened && Date.now() - checkedAt < CHECK_EVERY_MS) return opened.database;
      checkedAt = Date.now();
      if (opened && opened.inode === inodeOf(path)) return opened.database;
      try {
        disconnect();
        return open();
      } catch (error) {
        throw cannotOpen(error, path);
      }
    },
    close() {
      isClosed = true;
      disconnect();
    },
  };
}

/** Creates a directory and those above it, for their owner only. Node's own `recursive` never ends where `mkdir` answers ENOENT, as in /proc. */
function createDirectory(path: string): void {
  if (existsSync(path) || path === dirname(path)) return;
  createDirectory(dirname(path));
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    // Another process was faster.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

/** Creates an empty file, unless there is one. SQLite gives its other files the mode of this one. */
function createFile(path: string): void {
  try {
    // Not a file that exists: when a process closes a file, it loses all its locks on it, also those of SQLite.
    closeSync(openSync(path, 'wx', 0o600));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return;
    throw error;
  }
  // Left over from a file that was removed. SQLite would apply them to the new one.
  for (const suffix of ['-wal', '-shm']) rmSync(path + suffix, { force: true });
}

function inodeOf(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.ino;
}
