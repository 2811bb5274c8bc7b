import { driverConfig, type SessionDriverConfig } from '@coatcheck/session-core/driver';
import { postgresKinds, type PostgresDriverConfig } from './options.ts';

export { check, fromEnv } from '@coatcheck/session-core';
export type { MigrateFrom } from '@coatcheck/session-core';
export type { PostgresDriverConfig };

/**
 * Keeps Astro's sessions in Postgres.
 *
 * Runs inside `astro.config`: this module must not import the client, and no module that does.
 *
 * @throws for unknown options, and for values that do not survive the JSON that a config goes through when a site is built.
 * @example
 * export default defineConfig({ session: { driver: postgresDriver() } });
 */
export function postgresDriver(config?: PostgresDriverConfig): SessionDriverConfig {
  return driverConfig('@coatcheck/session-postgres', postgresKinds, config, new URL('./astro.js', import.meta.url));
}
