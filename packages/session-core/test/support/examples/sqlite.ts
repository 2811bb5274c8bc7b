import {
  defineDriver,
  text,
  valueStore,
  type FromEnv,
  type Host,
  type Lifetime,
  type SessionDriver,
  type SharedOptions,
} from '@coatcheck/session-core';

export interface SqliteDriverConfig extends SharedOptions {
  /** The database file. Default: `sessions.db`. */
  file?: FromEnv<string>;
}

const sqlite: (config?: SqliteDriverConfig, host?: Host) => SessionDriver = defineDriver<SqliteDriverConfig>({
  name: 'session-sqlite',
  options: { file: text },
  async open({ file = 'sessions.db' }) {
    const { DatabaseSync } = await import('node:sqlite');
    const db = new DatabaseSync(file);
    db.exec('CREATE TABLE IF NOT EXISTS session (key TEXT PRIMARY KEY, value TEXT, version TEXT, until REAL)');
    const read = db.prepare('SELECT value, version FROM session WHERE key = ? AND until > ?');
    const add = db.prepare(`INSERT INTO session VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE
      SET value = excluded.value, version = excluded.version, until = excluded.until WHERE until <= ?`);
    const change = db.prepare('UPDATE session SET value = ?, version = ?, until = ? WHERE key = ? AND version = ?');
    const remove = db.prepare('DELETE FROM session WHERE key = ?');
    const sweep = db.prepare('DELETE FROM session WHERE key IN (SELECT key FROM session WHERE until <= ? LIMIT ?)');

    return valueStore({
      compareAndSet: true,
      async get(key) {
        return (read.get(key, Date.now()) as { value: string; version: string } | undefined) ?? null;
      },
      async set(key, value, { lifetimeMs, version }) {
        const next = crypto.randomUUID();
        const { changes } =
          version === null
            ? add.run(key, value, next, endOf(lifetimeMs), Date.now())
            : change.run(value, next, endOf(lifetimeMs), key, version as string);
        return changes === 1;
      },
      async remove(key) {
        remove.run(key);
      },
      sweep: async (limit) => Number(sweep.run(Date.now(), limit).changes),
      close: async () => db.close(),
    });
  },
});

export default sqlite;

function endOf(lifetime: Lifetime): number {
  return lifetime === 'never' ? Number.MAX_SAFE_INTEGER : Date.now() + lifetime;
}
