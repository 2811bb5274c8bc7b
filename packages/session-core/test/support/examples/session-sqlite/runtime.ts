import {
  createError,
  defineDriver,
  valueStore,
  type Host,
  type Lifetime,
  type SessionStore,
  type SessionDriver,
} from '@coatcheck/session-core/driver';
import { sqliteKinds, type SqliteDriverConfig } from './options.ts';

const sqlite: (config?: SqliteDriverConfig, host?: Host) => SessionDriver = defineDriver<SqliteDriverConfig>({
  name: '@acme/session-sqlite',
  options: sqliteKinds,
  open: ({ file = 'sessions.db' }) => openStore(file),
});

export default sqlite;

export async function openStore(file: string): Promise<SessionStore> {
  const { DatabaseSync } = await import('node:sqlite');
  // How many milliseconds SQLite waits while another process writes. It blocks this process meanwhile.
  const db = new DatabaseSync(file, { timeout: 2000 });
  db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL');
  db.exec('CREATE TABLE IF NOT EXISTS session (key TEXT PRIMARY KEY, value TEXT, version TEXT, until REAL)');
  const read = db.prepare('SELECT value, version FROM session WHERE key = ? AND until > ?');
  const add = db.prepare(`INSERT INTO session VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE
    SET value = excluded.value, version = excluded.version, until = excluded.until WHERE until <= ?`);
  const change = db.prepare('UPDATE session SET value = ?, version = ?, until = ? WHERE key = ? AND version = ?');
  const remove = db.prepare('DELETE FROM session WHERE key = ?');
  const sweep = db.prepare('DELETE FROM session WHERE key IN (SELECT key FROM session WHERE until <= ? LIMIT ?)');

  return valueStore({
    compareAndSet: true,
    get: async (key) =>
      reached(() => read.get(key, Date.now()) as { value: string; version: string } | undefined) ?? null,
    async set(key, value, { lifetimeMs, version, signal }) {
      signal.throwIfAborted();
      const [next, until] = [crypto.randomUUID(), untilAfter(lifetimeMs)];
      const { changes } = reached(() =>
        version === null
          ? add.run(key, value, next, until, Date.now())
          : change.run(value, next, until, key, version as string),
      );
      return changes === 1;
    },
    remove: async (key) => void reached(() => remove.run(key)),
    sweep: async (limit) => Number(reached(() => sweep.run(Date.now(), limit)).changes),
    close: async () => db.close(),
  });
}

function untilAfter(lifetime: Lifetime): number {
  return lifetime === 'never' ? Number.MAX_SAFE_INTEGER : Date.now() + lifetime;
}

/** Runs a query; throws `unavailable` if SQLite cannot reach the file: 14 is SQLITE_CANTOPEN, 10 SQLITE_IOERR. */
function reached<Result>(work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    if (![10, 14].includes((error as { errcode?: number }).errcode ?? 0)) throw error;
    const message = 'The database file cannot be read. Is its disk there?';
    throw createError('@acme/session-sqlite', 'unavailable', message, { cause: error });
  }
}
