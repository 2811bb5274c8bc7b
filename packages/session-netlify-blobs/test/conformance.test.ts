import { valueStore, type SessionStore, type SessionDriver } from '@coatcheck/session-core/driver';
import { testDriver, testStore } from '@coatcheck/session-core/testing';
import netlifyBlobs from '@coatcheck/session-netlify-blobs/runtime';
import * as client from '@netlify/blobs';
import unstorageBlobs from 'unstorage/drivers/netlify-blobs';
import { afterAll, beforeAll, describe, it, vi } from 'vitest';
import { withFakeClock } from '@coatcheck/test-support/clock';
import { outageOf, startProxy, type FaultProxy } from '@coatcheck/test-support/fault-proxy';
import { everything } from '@coatcheck/test-support/scope';
import { inBlobStore } from '../src/client.ts';
import { blobBackend } from '../src/store.ts';
import { contextFor, startBlobs, startGateway, type Blobs } from './support/blobs.ts';

vi.setConfig({ testTimeout: 30_000 });

const openStore = (): SessionStore => valueStore(blobBackend(inBlobStore(client, {}), 5000));

/** All blobs of the store, with their metadata. */
async function dump(): Promise<string> {
  const store = client.getStore({ name: 'sessions', consistency: 'strong' });
  const { blobs } = await store.list();
  const found = await Promise.all(blobs.map(async ({ key }) => [key, await store.getWithMetadata(key)]));
  return JSON.stringify(found).replaceAll('\\"', '"');
}

const legacyDriver = () => unstorageBlobs({ name: 'astro-sessions', consistency: 'strong' }) as SessionDriver;

function serve(start: () => Promise<Blobs[]>): void {
  let parts: Blobs[];
  beforeAll(async () => {
    parts = await start();
    vi.stubEnv('NETLIFY_BLOBS_CONTEXT', contextFor(parts[0]!.port));
  });
  afterAll(async () => {
    vi.unstubAllEnvs();
    for (const part of parts) await part[Symbol.asyncDispose]();
  });
}

describe('with the guarantees of Netlify’s storage', () => {
  let proxy: FaultProxy;
  serve(async () => {
    const blobs = await startBlobs();
    const gateway = await startGateway(blobs);
    proxy = await startProxy({ target: gateway.port });
    return [proxy, gateway, blobs];
  });

  describe('the store', () => {
    testStore({ it, createStore: openStore, ...withFakeClock(), outage: () => outageOf(proxy)() });
  });
  describe('the driver', () => {
    testDriver({ it, createDriver: (config) => netlifyBlobs(config), dump, legacyDriver });
  });
});

describe('on Netlify’s development server', () => {
  serve(async () => [await startBlobs()]);

  // Conditional writes are not atomic there, so it is for one process only. The tests above cover the same code with several.
  const store = openStore();
  describe.each(everything ? ['the store'] : [])('%s', () => {
    testStore({ it, createStore: () => store, ...withFakeClock() });
  });
  describe('the driver', () => {
    testDriver({ it, createDriver: (config) => netlifyBlobs(config), dump, legacyDriver });
  });
});
