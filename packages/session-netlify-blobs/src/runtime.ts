import { defineDriver, valueStore, type Host, type SessionDriver } from '@coatcheck/session-core/driver';
import { inBlobStore } from './client.ts';
import { checkTogether, DRIVER, netlifyBlobsKinds, type NetlifyBlobsDriverConfig } from './options.ts';
import { blobBackend } from './store.ts';

/** The driver without Astro. */
const netlifyBlobs: (config?: NetlifyBlobsDriverConfig, host?: Host) => SessionDriver =
  defineDriver<NetlifyBlobsDriverConfig>({
    name: DRIVER,
    options: netlifyBlobsKinds,
    async open(options, { timeoutMs }) {
      checkTogether(options);
      const client = await import('@netlify/blobs');
      const inLegacyStore = (name = 'astro-sessions') => inBlobStore(client, { ...options, name, deployScoped: false });
      return {
        ...valueStore(blobBackend(inBlobStore(client, options), timeoutMs)),
        legacySessions: {
          read: (id, base, call) => inLegacyStore(base)(call, (store) => store.get(id)),
          remove: (id, base, call) => inLegacyStore(base)(call, (store) => store.delete(id)),
        },
      };
    },
  });

export default netlifyBlobs;
