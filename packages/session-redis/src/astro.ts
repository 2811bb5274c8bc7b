import type { SessionDriver } from '@coatcheck/session-core';
import { getSecret } from 'astro:env/server';
import type { RedisDriverConfig } from './options.ts';
import redis from './runtime.ts';

// `getSecret` is the only way to environment variables that also sees `.env` in `astro dev`.
export default (config?: RedisDriverConfig): SessionDriver =>
  redis(config, { env: getSecret, replaces: import.meta.env.DEV });
