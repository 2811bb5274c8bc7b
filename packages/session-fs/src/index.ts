import { driverConfig, type SessionDriverConfig } from '@coatcheck/session-core/driver';
import { fsKinds, type FsDriverConfig } from './options.ts';

export { check, fromEnv, sweep } from '@coatcheck/session-core';
export type { MigrateFrom } from '@coatcheck/session-core';
export type { FsDriverConfig };

/**
 * Keeps Astro's sessions in files, in a folder of the server: `session: { driver: fsDriver() }`.
 *
 * Throws for unknown options, and for values that do not survive the JSON that a config goes through when a site is built.
 */
export function fsDriver(config?: FsDriverConfig): SessionDriverConfig {
  return driverConfig('@coatcheck/session-fs', fsKinds, config, new URL('./astro.js', import.meta.url));
}
