import { driverConfig, type SessionDriverConfig } from '@coatcheck/session-core/driver';
import { fsKinds, type FsDriverConfig } from './options.ts';

export { check, fromEnv, sweep } from '@coatcheck/session-core';
export type { MigrateFrom } from '@coatcheck/session-core';
export type { FsDriverConfig };

/**
 * Stores Astro sessions as files in a directory of the server. The processes of one machine can share it.
 *
 * Each option except `migrateFrom` can be `fromEnv('NAME')`.
 *
 * @throws for unknown options, and for values that JSON cannot represent: Astro writes the config into the build as JSON.
 * @example
 * export default defineConfig({ session: { driver: fsDriver({ directory: '/var/lib/shop/sessions' }) } });
 */
export function fsDriver(config?: FsDriverConfig): SessionDriverConfig {
  return driverConfig('@coatcheck/session-fs', fsKinds, config, new URL('./astro.js', import.meta.url));
}
