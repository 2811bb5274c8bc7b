import type { SessionDriver } from '@coatcheck/session-core';
import { getSecret } from 'astro:env/server';
import type { FsDriverConfig } from './options.ts';
import fs from './runtime.ts';

// `getSecret` is the only way to environment variables that also sees `.env` in `astro dev`.
export default (config?: FsDriverConfig): SessionDriver =>
  fs(config, { env: getSecret, replaces: import.meta.env.DEV });
