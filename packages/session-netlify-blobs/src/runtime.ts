import { defineDriver, valueStore, type Host, type SessionDriver } from '@coatcheck/session-core';
import { inBlobStore } from './client.ts';
import { checkTogether, netlifyBlobsKinds, type NetlifyBlobsDriverConfig } from './options.ts';
import { blobBackend } from './store.ts';

/** The driver itself, free of Astro. */
const netlifyBlobs: (config?: NetlifyBlobsDriverConfig, host?: Host) => SessionDriver =
  defineDriver<NetlifyBlobsDriverConfig>({
    name: 'session-netlify-blobs',
    options: netlifyBlobsKinds,
    async open(options, { timeoutMs }) {
      checkTogether(options);
      return valueStore(blobBackend(inBlobStore(await import('@netlify/blobs'), options), timeoutMs));
    },
  });

export default netlifyBlobs;
