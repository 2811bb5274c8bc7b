import { defineDriver, type Host, type SessionDriver } from '@coatcheck/session-core/driver';
import { DRIVER, netlifyBlobsKinds, type NetlifyBlobsDriverConfig } from './options.ts';

/** The driver without Astro. */
const netlifyBlobs: (config?: NetlifyBlobsDriverConfig, host?: Host) => SessionDriver =
  defineDriver<NetlifyBlobsDriverConfig>({
    name: DRIVER,
    options: netlifyBlobsKinds,
    open: async (options, context) => (await import('./store.ts')).openStore(options, context),
  });

export default netlifyBlobs;
