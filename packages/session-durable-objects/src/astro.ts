import type { SessionDriver } from '@coatcheck/session-core';
import { getSecret } from 'astro:env/server';
import type { DurableObjectsDriverConfig } from './options.ts';
import durableObjects from './runtime.ts';

// `getSecret` is the only way to environment variables that also sees `.dev.vars` and `.env` in `astro dev`.
export default (config?: DurableObjectsDriverConfig): SessionDriver =>
  durableObjects(config, { env: getSecret, replaces: import.meta.env.DEV });
