import { readdir, readFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSite, startSite, type Built, type Site } from '../support/site.ts';

const source = fileURLToPath(new URL('../../examples/shop/src/', import.meta.url));

// A page that the shop itself does not have. It returns measurements of the server process.
const measures = `
export const GET = async () => {
  for (let round = 0; round < 3; round++) {
    globalThis.gc();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const { heapUsed, rss } = process.memoryUsage();
  const sockets = process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length;
  return Response.json({ heapUsed, rss, sockets });
};
`;

/** Measurements of the shop's server process. */
export interface Measures {
  /** In bytes, after garbage collection. */
  heapUsed: number;
  /** In bytes. */
  rss: number;
  /** The number of open connections from visitors, including the one of this measurement. */
  sockets: number;
}

/** Builds the shop of `examples/shop` on Redis. Its `timeout` comes from the environment, and it has one more page, for `measure`. */
export async function buildShop(): Promise<Built> {
  const found = await readdir(source, { recursive: true, withFileTypes: true });
  const files: Record<string, string> = { 'src/pages/measures.ts': measures };
  for (const entry of found.filter((it) => it.isFile())) {
    const path = join(entry.parentPath, entry.name);
    files[join('src', relative(source, path))] = await readFile(path, 'utf8');
  }
  return buildSite({ astro: 7, driver: `redisDriver({ timeout: fromEnv('SESSION_TIMEOUT') })`, files });
}

/** Starts the shop. `timeoutMs` is its option `timeout`, in milliseconds. */
export async function startShop(built: Built, redisPort: number, timeoutMs: number): Promise<Site> {
  const env = { REDIS_URL: `redis://127.0.0.1:${redisPort}`, SESSION_TIMEOUT: String(timeoutMs) };
  return startSite(built, { env, nodeArgs: ['--expose-gc'] });
}

/** Measures the server process of a shop that `startShop` started. */
export async function measure({ url }: Site): Promise<Measures> {
  const response = await fetch(`${url}/measures`);
  return (await response.json()) as Measures;
}
