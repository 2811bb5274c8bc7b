import type { SessionDriver } from '@coatcheck/session-core';
import { getSecret } from 'astro:env/server';
import type { UpstashDriverConfig } from './options.ts';
import upstash from './runtime.ts';

// `getSecret` is the only way to environment variables that also sees `.env` in `astro dev`.
export default (config?: UpstashDriverConfig): SessionDriver =>
  upstash(config, { env: getSecret, replaces: import.meta.env.DEV });
