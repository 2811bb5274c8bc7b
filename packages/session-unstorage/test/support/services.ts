import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BlobsServer } from '@netlify/blobs/server';
import { createStorage } from 'unstorage';
import { createStorageServer } from 'unstorage/server';
import { redisUrl } from '@coatcheck/test-support/redis-server';
import { startUpstashBridge } from '@coatcheck/test-support/upstash-bridge';
import type { DriverOptions } from './make-driver.ts';

type OnEnd = (cleanUp: () => unknown) => void;

async function newFolder(onEnd: OnEnd): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'coatcheck-unstorage-'));
  onEnd(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/**
 * The unstorage drivers that run locally without an account. Each function starts what its driver needs, and resolves to the options of the
 * driver.
 */
export const services: Record<string, (onEnd: OnEnd) => DriverOptions | Promise<DriverOptions>> = {
  memory: () => ({}),
  'lru-cache': () => ({}),
  fs: async (onEnd) => ({ base: await newFolder(onEnd) }),
  'fs-lite': async (onEnd) => ({ base: await newFolder(onEnd) }),
  redis: async () => ({ url: await redisUrl(), base: 'unstorage' }),

  /** SQLite, with `node:sqlite`. */
  db0: async (onEnd) => ({ path: join(await newFolder(onEnd), 'db.sqlite') }),

  /** Deno KV in a file, with its client for Node. */
  'deno-kv-node': async (onEnd) => ({ path: join(await newFolder(onEnd), 'kv.sqlite') }),

  /** unstorage's own server. */
  http: async (onEnd) => {
    const server = createServer(createStorageServer(createStorage()).handle).listen(0, '127.0.0.1');
    await once(server, 'listening');
    onEnd(() => {
      server.closeAllConnections();
      server.close();
    });
    return { base: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
  },

  /** Netlify's own server for tests. */
  'netlify-blobs': async (onEnd) => {
    const [directory, token] = [await newFolder(onEnd), 'token'];
    const server = new BlobsServer({ directory, token });
    const { port } = await server.start();
    onEnd(() => server.stop());
    return { name: 'sessions', siteID: 'site', token, edgeURL: `http://127.0.0.1:${port}` };
  },

  /** A bridge with Upstash's interface, in front of a real Redis. */
  upstash: async (onEnd) => {
    const bridge = await startUpstashBridge(await redisUrl());
    onEnd(() => bridge[Symbol.asyncDispose]());
    return { url: bridge.url, token: bridge.token };
  },

  overlay: () => ({}),

  /** Outside of Vercel, its client keeps values in the process. */
  'vercel-runtime-cache': () => ({}),
};
