import { defineDriver, type Host, type SessionDriver } from '@coatcheck/session-core/driver';
import { DRIVER, type RedisRuntimeConfig, runtimeKinds } from './options.ts';

export type { IoRedisClient, NodeRedisClient, NodeRedisCluster, RedisClient, RedisRuntimeConfig } from './options.ts';

/**
 * The driver without Astro. Drivers in one process that have the same options share one connection.
 *
 * @example
 * const driver = redis({ url: 'redis://localhost:6379' });
 * const driver = redis({ client: new Redis() });
 */
const redis: (config?: RedisRuntimeConfig, host?: Host) => SessionDriver = defineDriver<RedisRuntimeConfig>({
  name: DRIVER,
  options: runtimeKinds,
  variables: ['REDIS_URL'],
  async open(options, { env, timeoutMs }) {
    const [{ redisStore }, { checkTogether, targetOf }] = await Promise.all([
      import('@coatcheck/session-core/redis'),
      import('./target.ts'),
    ]);
    checkTogether(options);
    if (options.client) {
      const { useClient } = await import('./app-client.ts');
      return redisStore(DRIVER, useClient(options.client, timeoutMs));
    }
    const target = targetOf(options, env);
    const { openConnection } = await import('./connection.ts');
    return redisStore(DRIVER, openConnection(await import('ioredis'), target, timeoutMs));
  },
});

export default redis;
