import { driverConfig, type SessionDriverConfig } from '@coatcheck/session-core/driver';
import { configKinds, type CloudflareKvDriverConfig } from './options.ts';

export { check, fromEnv } from '@coatcheck/session-core';
export type { MigrateFrom } from '@coatcheck/session-core';
export type { CloudflareKvDriverConfig };

/**
 * Stores Astro sessions in a Workers KV namespace. The Worker needs a KV binding named `SESSION`, or as the option `namespace` says.
 *
 * Each option except `migrateFrom` can be `fromEnv('NAME')`.
 *
 * @throws for unknown options, and for values that JSON cannot represent: Astro writes the config into the build as JSON.
 * @example
 * export default defineConfig({ session: { driver: cloudflareKvDriver({ namespace: 'SHOP_SESSIONS' }) } });
 */
export function cloudflareKvDriver(config?: CloudflareKvDriverConfig): SessionDriverConfig {
  return driverConfig('@coatcheck/session-cloudflare-kv', configKinds, config, new URL('./astro.js', import.meta.url));
}
