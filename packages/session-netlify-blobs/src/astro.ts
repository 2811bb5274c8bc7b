import type { SessionDriver } from '@coatcheck/session-core';
import { getSecret } from 'astro:env/server';
import type { NetlifyBlobsDriverConfig } from './options.ts';
import netlifyBlobs from './runtime.ts';

// `getSecret` is the only way to environment variables that also sees `.env` in `astro dev`.
export default (config?: NetlifyBlobsDriverConfig): SessionDriver =>
  netlifyBlobs(config, { env: getSecret, replaces: import.meta.env.DEV });
