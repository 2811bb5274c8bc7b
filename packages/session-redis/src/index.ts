import { driverConfig, type SessionDriverConfig } from '@coatcheck/session-core/driver';
import { redisKinds, type RedisDriverConfig, type RedisNode, type RedisSentinel } from './options.ts';
import { checkTogether } from './target.ts';

export { check, fromEnv } from '@coatcheck/session-core';
export type { MigrateFrom } from '@coatcheck/session-core';
export type { TlsOptions } from '@coatcheck/session-core/driver';
export type { RedisDriverConfig, RedisNode, RedisSentinel };

/**
 * Stores Astro sessions in Redis or Valkey. It needs no options if the environment variable `REDIS_URL` is set.
 *
 * Each option except `sentinel` and `migrateFrom` can be `fromEnv('NAME')`. So can the parts of these two.
 *
 * @throws for unknown and contradictory options, and for values that JSON cannot represent: Astro writes the config into the build as
 *   JSON.
 * @example
 * export default defineConfig({ session: { driver: redisDriver({ url: fromEnv('SESSION_REDIS_URL') }) } });
 */
export function redisDriver(config?: RedisDriverConfig): SessionDriverConfig {
  checkTogether(config ?? {});
  return driverConfig('@coatcheck/session-redis', redisKinds, config, new URL('./astro.js', import.meta.url));
}
