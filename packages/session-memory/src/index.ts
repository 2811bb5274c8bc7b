import { driverConfig, type SessionDriverConfig } from '@coatcheck/session-core/driver';
import { memoryKinds, type MemoryDriverConfig } from './options.ts';

export { check, fromEnv } from '@coatcheck/session-core';
export type { MigrateFrom } from '@coatcheck/session-core';
export type { MemoryDriverConfig };

/**
 * Keeps Astro's sessions in the memory of the server's process: `session: { driver: memoryDriver() }`.
 *
 * Throws for unknown options, and for values that do not survive the JSON that a config goes through when a site is built.
 */
export function memoryDriver(config?: MemoryDriverConfig): SessionDriverConfig {
  return driverConfig('@coatcheck/session-memory', memoryKinds, config, new URL('./astro.js', import.meta.url));
}
