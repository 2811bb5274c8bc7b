import type { SessionDriver } from '@coatcheck/session-core';
import { getSecret } from 'astro:env/server';
import type { SqliteDriverConfig } from './options.ts';
import sqlite from './runtime.ts';

// `getSecret` is the only way to environment variables that also sees `.env` in `astro dev`.
export default (config?: SqliteDriverConfig): SessionDriver =>
  sqlite(config, { env: getSecret, replaces: import.meta.env.DEV });
