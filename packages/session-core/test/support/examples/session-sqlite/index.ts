import { driverConfig, type SessionDriverConfig } from '@coatcheck/session-core/driver';
import { sqliteKinds, type SqliteDriverConfig } from './options.ts';

export type { SqliteDriverConfig };

/** Keeps Astro's sessions in SQLite: `session: { driver: sqliteDriver() }`. */
export function sqliteDriver(config?: SqliteDriverConfig): SessionDriverConfig {
  return driverConfig('@acme/session-sqlite', sqliteKinds, config, new URL('./astro.js', import.meta.url));
}
