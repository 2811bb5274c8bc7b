import type { SessionDriver } from '@coatcheck/session-core';
import { getSecret } from 'astro:env/server';
import type { LibsqlDriverConfig } from './options.ts';
import libsql from './runtime.ts';

// `getSecret` is the only way to environment variables that also sees `.env` in `astro dev`.
export default (config?: LibsqlDriverConfig): SessionDriver =>
  libsql(config, { env: getSecret, replaces: import.meta.env.DEV });
