import { readdir, readFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSite, startSite, type Built, type Site } from '../support/site.ts';

const source = fileURLToPath(new URL('../../examples/shop/src/', import.meta.url));

// What an operator would read off the process; the shop itself has no such page.
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

export interface Measures {
  /** Bytes, after a collection. */
  heapUsed: number;
  rss: number;
  /** Open connections of visitors, this question's own among them. */
  sockets: number;
}

/** The shop of `examples/shop` as it stands there, on Redis, with a deadline that the environment says and a page that measures. */
export async function buildShop(): Promise<Built> {
  const found = await readdir(source, { recursive: true, withFileTypes: true });
  const files: Record<string, string> = { 'src/pages/measures.ts': measures };
  for (const entry of found.filter((it) => it.isFile())) {
    const path = join(entry.parentPath, entry.name);
    files[join('src', relative(source, path))] = await readFile(path, 'utf8');
  }
  return buildSite({ astro: 7, driver: `redisDriver({ timeout: fromEnv('SESSION_TIMEOUT') })`, files });
}

export async function startShop(built: Built, redisPort: number, timeoutMs: number): Promise<Site> {
  const env = { REDIS_URL: `redis://127.0.0.1:${redisPort}`, SESSION_TIMEOUT: String(timeoutMs) };
  return startSite(built, { env, nodeArgs: ['--expose-gc'] });
}

export async function measure({ url }: Site): Promise<Measures> {
  const response = await fetch(`${url}/measures`);
  return (await response.json()) as Measures;
}
