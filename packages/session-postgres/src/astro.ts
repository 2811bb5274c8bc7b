import type { SessionDriver } from '@coatcheck/session-core';
import { getSecret } from 'astro:env/server';
import type { PostgresDriverConfig } from './options.ts';
import postgres from './runtime.ts';

// `getSecret` is the only way to environment variables that also sees `.env` in `astro dev`.
export default (config?: PostgresDriverConfig): SessionDriver =>
  postgres(config, { env: getSecret, replaces: import.meta.env.DEV });
