import type { SessionDriver } from '@coatcheck/session-core';
import { getSecret } from 'astro:env/server';
import type { ThingDriverConfig } from './options.ts';
import thing from './runtime.ts';

// `getSecret` is the only way to environment variables that also sees `.env` in `astro dev`.
export default (config?: ThingDriverConfig): SessionDriver =>
  thing(config, { env: getSecret, replaces: import.meta.env.DEV });
