import type { SessionDriver } from '@coatcheck/session-core';
import { getSecret } from 'astro:env/server';
import type { MemoryDriverConfig } from './options.ts';
import memory from './runtime.ts';

// `getSecret` is the only way to environment variables that also sees `.env` in `astro dev`.
export default (config?: MemoryDriverConfig): SessionDriver =>
  memory(config, { env: getSecret, replaces: import.meta.env.DEV });
