import type { SessionDriver } from '@coatcheck/session-core';
import { getSecret } from 'astro:env/server';
import type { D1DriverConfig } from './options.ts';
import d1 from './runtime.ts';

// `getSecret` is the only way to environment variables that also sees `.dev.vars` and `.env` in `astro dev`.
export default (config?: D1DriverConfig): SessionDriver =>
  d1(config, { env: getSecret, replaces: import.meta.env.DEV });
