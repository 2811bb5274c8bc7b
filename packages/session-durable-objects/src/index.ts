import { driverConfig, type SessionDriverConfig } from '@coatcheck/session-core/driver';
import { configKinds, type DurableObjectsDriverConfig } from './options.ts';

export { check, fromEnv } from '@coatcheck/session-core';
export type { MigrateFrom } from '@coatcheck/session-core';
export type { DurableObjectsDriverConfig };

/**
 * Stores each Astro session in a Durable Object of its own. The Worker exports the class `CoatcheckSession`, and has a binding to it named
 * `SESSIONS`, or as the option `namespace` says.
 *
 * Each option except `migrateFrom` can be `fromEnv('NAME')`.
 *
 * @throws for unknown options, and for values that JSON cannot represent: Astro writes the config into the build as JSON.
 * @example
 * export default defineConfig({ session: { driver: durableObjectsDriver({ locationHint: 'weur' }) } });
 */
export function durableObjectsDriver(config?: DurableObjectsDriverConfig): SessionDriverConfig {
  return driverConfig(
    '@coatcheck/session-durable-objects',
    configKinds,
    config,
    new URL('./astro.js', import.meta.url),
  );
}
