import { driverConfig, type SessionDriverConfig } from '@coatcheck/session-core/driver';
import { upstashKinds, type UpstashDriverConfig } from './options.ts';

export { check, fromEnv } from '@coatcheck/session-core';
export type { MigrateFrom } from '@coatcheck/session-core';
export type { UpstashDriverConfig } from './options.ts';

/**
 * Stores Astro sessions in Upstash Redis, over HTTP. It needs no options if the environment variables `UPSTASH_REDIS_REST_URL` and
 * `UPSTASH_REDIS_REST_TOKEN` are set.
 *
 * Each option except `migrateFrom` can be `fromEnv('NAME')`.
 *
 * @throws for unknown options, for a `url` that is not an HTTP URL, and for values that JSON cannot represent: Astro writes the config into
 *   the build as JSON.
 * @example
 * export default defineConfig({ session: { driver: upstashDriver({ prefix: 'shop:' }) } });
 */
export function upstashDriver(config?: UpstashDriverConfig): SessionDriverConfig {
  return driverConfig('@coatcheck/session-upstash', upstashKinds, config, new URL('./astro.js', import.meta.url));
}
