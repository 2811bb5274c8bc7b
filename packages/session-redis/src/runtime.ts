import { defineDriver, type Host, type SessionDriver } from '@coatcheck/session-core';
import { openConnection } from './connection.ts';
import { redisKinds, type RedisDriverConfig } from './options.ts';
import { redisStore } from './store.ts';
import { targetOf } from './target.ts';

/** The driver itself, free of Astro. Drivers of one process with the same configuration share one connection. */
const redis: (config?: RedisDriverConfig, host?: Host) => SessionDriver = defineDriver<RedisDriverConfig>({
  name: 'session-redis',
  options: redisKinds,
  async open(options, { env }) {
    const target = targetOf(options, env);
    return redisStore(openConnection(await import('ioredis'), target, options.timeout ?? 5000));
  },
});

export default redis;
