import { driverConfig, type SessionDriverConfig } from '@coatcheck/session-core/driver';
import { thingKinds, type ThingDriverConfig } from './options.ts';

export { check, fromEnv } from '@coatcheck/session-core';
export type { MigrateFrom } from '@coatcheck/session-core';
export type { ThingDriverConfig };

/**
 * Keeps Astro's sessions in Thing.
 *
 * Runs inside `astro.config`: this module must not import the client, and no module that does.
 *
 * @throws for unknown options, and for values that do not survive the JSON that a config goes through when a site is built.
 * @example
 * export default defineConfig({ session: { driver: thingDriver() } });
 */
export function thingDriver(config?: ThingDriverConfig): SessionDriverConfig {
  return driverConfig('@coatcheck/session-thing', thingKinds, config, new URL('./astro.js', import.meta.url));
}
