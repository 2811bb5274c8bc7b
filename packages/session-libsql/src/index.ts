import { driverConfig, type SessionDriverConfig } from '@coatcheck/session-core/driver';
import { configKinds, type LibsqlDriverConfig } from './options.ts';

export { check, fromEnv, sweep } from '@coatcheck/session-core';
export type { MigrateFrom } from '@coatcheck/session-core';
export { createSqliteTableSql as createTableSql } from '@coatcheck/session-core/sql';
export type { LibsqlDriverConfig };

/**
 * Stores Astro sessions in a libSQL database, such as one of Turso.
 *
 * Each option except `migrateFrom` can be `fromEnv('NAME')`.
 *
 * @throws for unknown options, and for values that JSON cannot represent: Astro writes the config into the build as JSON.
 * @example
 * export default defineConfig({ session: { driver: libsqlDriver({ url: fromEnv('SESSIONS_URL') }) } });
 */
export function libsqlDriver(config?: LibsqlDriverConfig): SessionDriverConfig {
  return driverConfig('@coatcheck/session-libsql', configKinds, config, new URL('./astro.js', import.meta.url));
}
