import { defineDriver, type Host, type SessionDriver } from '@coatcheck/session-core/driver';
import { redisStore } from '@coatcheck/session-core/redis';
import { openConnection } from './connection.ts';
import { DRIVER } from './errors.ts';
import { redisKinds, type RedisDriverConfig } from './options.ts';
import { targetOf } from './target.ts';

/** The driver without Astro. Drivers in one process that have the same options share one connection. */
const redis: (config?: RedisDriverConfig, host?: Host) => SessionDriver = defineDriver<RedisDriverConfig>({
  name: DRIVER,
  options: redisKinds,
  variables: ['REDIS_URL'],
  async open(options, { env, timeoutMs }) {
    const target = targetOf(options, env);
    return redisStore(DRIVER, openConnection(await import('ioredis'), target, timeoutMs));
  },
});

export default redis;
