import { driverConfig, type SessionDriverConfig } from '@coatcheck/session-core/driver';
import { configKinds, type SqliteDriverConfig } from './options.ts';

export { check, fromEnv, sweep } from '@coatcheck/session-core';
export type { MigrateFrom } from '@coatcheck/session-core';
export { createSqliteTableSql as createTableSql } from '@coatcheck/session-core/sql';
export type { SqliteDriverConfig };

/**
 * Stores Astro sessions in an SQLite database, which is a file.
 *
 * Each option except `migrateFrom` can be `fromEnv('NAME')`.
 *
 * @throws for unknown options, and for values that JSON cannot represent: Astro writes the config into the build as JSON.
 * @example
 * export default defineConfig({ session: { driver: sqliteDriver({ file: '/data/sessions.db' }) } });
 */
export function sqliteDriver(config?: SqliteDriverConfig): SessionDriverConfig {
  return driverConfig('@coatcheck/session-sqlite', configKinds, config, new URL('./astro.js', import.meta.url));
}
