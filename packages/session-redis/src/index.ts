import { driverConfig, type SessionDriverConfig } from '@coatcheck/session-core/driver';
import { redisKinds, type RedisDriverConfig, type RedisNode, type RedisSentinel, type RedisTls } from './options.ts';
import { checkTogether } from './target.ts';

export { check, fromEnv } from '@coatcheck/session-core';
export type { MigrateFrom } from '@coatcheck/session-core';
export type { RedisDriverConfig, RedisNode, RedisSentinel, RedisTls };

/**
 * Keeps Astro's sessions in Redis or Valkey: `session: { driver: redisDriver() }`, and the variable `REDIS_URL`.
 *
 * Throws for unknown and contradicting options, and for values that do not survive the JSON that a config goes through when a site is
 * built.
 */
export function redisDriver(config?: RedisDriverConfig): SessionDriverConfig {
  checkTogether(config ?? {});
  return driverConfig('@coatcheck/session-redis', redisKinds, config, new URL('./astro.js', import.meta.url));
}
