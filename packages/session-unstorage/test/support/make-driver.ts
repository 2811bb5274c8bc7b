import { createDatabase } from 'db0';
import sqlite from 'db0/connectors/node-sqlite';
import type { Driver } from 'unstorage';
import db0 from 'unstorage/drivers/db0';
import denoKvNode from 'unstorage/drivers/deno-kv-node';
import fs from 'unstorage/drivers/fs';
import fsLite from 'unstorage/drivers/fs-lite';
import http from 'unstorage/drivers/http';
import lruCache from 'unstorage/drivers/lru-cache';
import memory from 'unstorage/drivers/memory';
import netlifyBlobs from 'unstorage/drivers/netlify-blobs';
import overlay from 'unstorage/drivers/overlay';
import redis from 'unstorage/drivers/redis';
import upstash from 'unstorage/drivers/upstash';
import vercelRuntimeCache from 'unstorage/drivers/vercel-runtime-cache';

// Sites import this module too, so it must not import anything of the tests.

/** The options of an unstorage driver, if they fit into an environment variable. */
export interface DriverOptions {
  base?: string;
  name?: string;
  path?: string;
  siteID?: string;
  token?: string;
  edgeURL?: string;
  url?: string;
}

const required = <Value>(value: Value | undefined): Value => {
  if (value === undefined) throw new Error('an option is missing');
  return value;
};

export const makeDriver: Record<string, (options: DriverOptions) => Driver> = {
  memory: () => memory(),
  'lru-cache': () => lruCache({}),
  fs: ({ base }) => fs({ base: required(base) }),
  'fs-lite': ({ base }) => fsLite({ base: required(base) }),
  redis: ({ url, base }) => redis({ url: required(url), base: required(base) }),
  db0: ({ path }) => db0({ database: createDatabase(sqlite({ path: required(path) })) }),
  'deno-kv-node': ({ path }) => denoKvNode({ path: required(path) }),
  http: ({ base }) => http({ base: required(base) }),
  'netlify-blobs': (options) => netlifyBlobs({ ...options, name: required(options.name) }),
  upstash: ({ url, token }) => upstash({ url: required(url), token: required(token) }),
  overlay: () => overlay({ layers: [memory(), memory()] }),
  'vercel-runtime-cache': () => vercelRuntimeCache({}),
};
