import { driverConfig, type SessionDriverConfig } from '@coatcheck/session-core/driver';
import { upstashKinds, type UpstashDriverConfig } from './options.ts';

export { check, fromEnv } from '@coatcheck/session-core';
export type { MigrateFrom } from '@coatcheck/session-core';
export type { UpstashDriverConfig } from './options.ts';

/**
 * Keeps Astro's sessions in Upstash Redis, over HTTP: `session: { driver: upstashDriver() }`, and the variables
 * `UPSTASH_REDIS_REST_URL` and `UPSTASH_REDIS_REST_TOKEN`.
 *
 * Throws for unknown options, for a `url` that is no HTTP URL, and for values that do not survive the JSON that a config goes through
 * when a site is built.
 */
export function upstashDriver(config?: UpstashDriverConfig): SessionDriverConfig {
  return driverConfig('@coatcheck/session-upstash', upstashKinds, config, new URL('./astro.js', import.meta.url));
}
