import { driverConfig, type SessionDriverConfig } from '@coatcheck/session-core/driver';
import { configKinds, type CloudflareKvDriverConfig } from './options.ts';

export { check, fromEnv } from '@coatcheck/session-core';
export type { MigrateFrom } from '@coatcheck/session-core';
export type { CloudflareKvDriverConfig };

/**
 * Keeps Astro's sessions in a namespace of Workers KV: `session: { driver: cloudflareKvDriver() }`. The Worker needs a KV binding of the
 * name `SESSION`, or of the one that `namespace` says.
 *
 * Throws for unknown options, and for values that do not survive the JSON that a config goes through when a site is built.
 */
export function cloudflareKvDriver(config?: CloudflareKvDriverConfig): SessionDriverConfig {
  return driverConfig('@coatcheck/session-cloudflare-kv', configKinds, config, new URL('./astro.js', import.meta.url));
}
