import { driverConfig, type SessionDriverConfig } from '@coatcheck/session-core/driver';
import { configKinds, type D1DriverConfig } from './options.ts';

export { check, fromEnv, sweep } from '@coatcheck/session-core';
export type { MigrateFrom } from '@coatcheck/session-core';
export { createSqliteTableSql as createTableSql } from '@coatcheck/session-core/sql';
export type { D1DriverConfig };

/**
 * Stores Astro sessions in a D1 database. The Worker needs a D1 binding named `DB`, or as the option `database` says.
 *
 * Each option except `migrateFrom` can be `fromEnv('NAME')`.
 *
 * @throws for unknown options, and for values that JSON cannot represent: Astro writes the config into the build as JSON.
 * @example
 * export default defineConfig({ session: { driver: d1Driver({ database: 'SHOP' }) } });
 */
export function d1Driver(config?: D1DriverConfig): SessionDriverConfig {
  return driverConfig('@coatcheck/session-d1', configKinds, config, new URL('./astro.js', import.meta.url));
}
