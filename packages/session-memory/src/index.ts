import { driverConfig, type SessionDriverConfig } from '@coatcheck/session-core/driver';
import { memoryKinds, type MemoryDriverConfig } from './options.ts';

export { check, fromEnv } from '@coatcheck/session-core';
export type { MigrateFrom } from '@coatcheck/session-core';
export type { MemoryDriverConfig };

/**
 * Stores Astro sessions in the memory of the server process. They end with the process.
 *
 * Each option except `migrateFrom` can be `fromEnv('NAME')`.
 *
 * @throws for unknown options, and for values that JSON cannot represent: Astro writes the config into the build as JSON.
 * @example
 * export default defineConfig({ session: { driver: memoryDriver({ maxSessions: 10_000 }) } });
 */
export function memoryDriver(config?: MemoryDriverConfig): SessionDriverConfig {
  return driverConfig('@coatcheck/session-memory', memoryKinds, config, new URL('./astro.js', import.meta.url));
}
