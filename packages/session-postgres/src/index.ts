import { driverConfig, type SessionDriverConfig } from '@coatcheck/session-core/driver';
import { configKinds, type PostgresDriverConfig } from './options.ts';

export { check, fromEnv, sweep } from '@coatcheck/session-core';
export type { MigrateFrom } from '@coatcheck/session-core';
export type { TlsOptions } from '@coatcheck/session-core/driver';
export { createTableSql } from './table.ts';
export type { PostgresDriverConfig };

/**
 * Stores Astro sessions in PostgreSQL. It needs no options if the environment variable `DATABASE_URL` is set.
 *
 * Each option except `migrateFrom` can be `fromEnv('NAME')`.
 *
 * @throws for unknown options, and for values that JSON cannot represent: Astro writes the config into the build as JSON.
 * @example
 * export default defineConfig({ session: { driver: postgresDriver({ url: fromEnv('SESSIONS_DATABASE_URL') }) } });
 */
export function postgresDriver(config?: PostgresDriverConfig): SessionDriverConfig {
  return driverConfig('@coatcheck/session-postgres', configKinds, config, new URL('./astro.js', import.meta.url));
}
