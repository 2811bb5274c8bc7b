import { cp, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { fileURLToPath } from 'node:url';
import { Redis } from 'ioredis';
import { startWorkers, workerSite, type Workers } from '../../packages/session-cloudflare-kv/test/support/site.ts';
import {
  contextFor,
  SITE,
  startBlobs,
  startGateway,
  TOKEN,
} from '../../packages/session-netlify-blobs/test/support/blobs.ts';
import { startRedis } from './redis-server.ts';
import { buildSite, startSite, type Built, type Site, type SiteSpec } from './site.ts';
import { startUpstashBridge } from './upstash-bridge.ts';

/** A backend, and two builds of the same site for it: with Astro's own driver, and with ours. */
export interface Place extends AsyncDisposable {
  /** Starts the site with Astro's own driver. */
  before(): Promise<Shop>;
  /** Starts the site with our driver, with or without migration. */
  after(migrateFrom: boolean): Promise<Shop>;
  /** Whether several servers can change one session concurrently. */
  atomic: boolean;
  /** Everything that the backend stores, by name. */
  stored(): Promise<Map<string, string>>;
}

export type Shop = Pick<Site, 'url'> & AsyncDisposable;

/** The backends, by the names that users know. */
export const places: Record<string, () => Promise<Place>> = {
  Redis: () => onRedis(7),
  'Redis, on Astro 6': () => onRedis(6),
  Upstash: onUpstash,
  files: () => fromFiles('7-storage', 'fsDriver'),
  'files, to SQLite': () => fromFiles(7, 'sqliteDriver'),
  'Cloudflare KV': onCloudflareKv,
  'Netlify Blobs': onNetlifyBlobs,
};

/** The driver options of every `after` in this file. */
const OPTIONS = `{ migrateFrom: { until: fromEnv('MIGRATE_UNTIL') } }`;

const migrating = (migrateFrom: boolean): Record<string, string> => ({
  MIGRATE_UNTIL: migrateFrom ? '2100-01-01' : '2000-01-01',
});

async function onRedis(astro: 6 | 7): Promise<Place> {
  const server = await startRedis();
  const redis = new Redis(server.url);
  const before = await buildSite({ astro, driver: `sessionDrivers.redis({ url: '${server.url}' })` });
  const after = await buildSite({ astro, driver: `redisDriver(${OPTIONS})` });
  return {
    atomic: true,
    before: () => startSite(before),
    after: (migrateFrom) => startSite(after, { env: { REDIS_URL: server.url, ...migrating(migrateFrom) } }),
    stored: () => storedInRedis(redis),
    async [Symbol.asyncDispose]() {
      redis.disconnect();
      await server[Symbol.asyncDispose]();
    },
  };
}

export async function storedInRedis(redis: Redis): Promise<Map<string, string>> {
  const read = async (key: string): Promise<string> =>
    (await redis.type(key)) === 'string' ? (await redis.get(key))! : JSON.stringify(await redis.hgetall(key));
  return valuesOf(await redis.keys('*'), read);
}

/** A site for Vercel, where most Upstash users are. */
async function onUpstash(): Promise<Place> {
  const server = await startRedis();
  const bridge = await startUpstashBridge(server.url);
  const redis = new Redis(server.url);
  const siteWith = (driver: string): SiteSpec => ({
    astro: '7-vercel',
    driver,
    files: {
      'astro.config.mjs': configWith(
        `import vercel from '@astrojs/vercel';\nimport { fromEnv, upstashDriver } from '@coatcheck/session-upstash';`,
        'vercel()',
        `driver: ${driver}`,
      ),
    },
  });
  const build = async (driver: string): Promise<Built> => {
    const built = await buildSite(siteWith(driver));
    const dist = join(built.dir, '.vercel/output/functions');
    await cp(new URL('../apps/astro-7-vercel/launcher.js', import.meta.url), join(dist, 'server/entry.mjs'));
    return { ...built, dist };
  };
  const before = await build('sessionDrivers.upstash()');
  const after = await build(`upstashDriver(${OPTIONS})`);
  const launch = (built: Built, env = {}): Promise<Site> => {
    const address = { UPSTASH_REDIS_REST_URL: bridge.url, UPSTASH_REDIS_REST_TOKEN: bridge.token };
    return startSite(built, { env: { ...address, ...env } });
  };
  return {
    atomic: true,
    before: () => launch(before),
    after: (migrateFrom) => launch(after, migrating(migrateFrom)),
    stored: () => storedInRedis(redis),
    async [Symbol.asyncDispose]() {
      redis.disconnect();
      await bridge[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

/** Without a driver, the Node adapter stores files in the build cache of the app, so the server is started in that folder. */
async function fromFiles(astro: SiteSpec['astro'], driver: 'fsDriver' | 'sqliteDriver'): Promise<Place> {
  const before = await buildSite({ astro, driver: 'undefined' });
  const after = await buildSite({ astro, driver: `${driver}(${OPTIONS})` });
  const folders = ['node_modules/.astro/sessions', '.sessions'].map((path) => join(before.dir, path));
  const empty = () => Promise.all(folders.map((folder) => rm(folder, { recursive: true, force: true })));
  await empty();
  return {
    atomic: true,
    before: () => startSite(before),
    after: (migrateFrom) => startSite({ ...after, dir: before.dir }, { env: migrating(migrateFrom) }),
    async stored() {
      const found = folders.map((folder) => readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []));
      const files = (await Promise.all(found)).flat().filter((it) => it.isFile());
      const paths = files.map((it) => join(it.parentPath, it.name));
      // Not the bytes of a database: SQLite leaves in them what was deleted.
      const database = paths.find((path) => path.endsWith('.db'));
      const plain = paths.filter((path) => !database || !path.startsWith(database));
      const stored = await valuesOf(plain, (path) => readFile(path, 'utf8'));
      return database ? new Map([...stored, ...rowsOf(database)]) : stored;
    },
    async [Symbol.asyncDispose]() {
      await empty();
    },
  };
}

function rowsOf(file: string): [key: string, fields: string][] {
  using database = new DatabaseSync(file);
  const rows = database.prepare('SELECT key, fields FROM coatcheck_sessions').all();
  return rows.map(({ key, fields }) => [String(key), String(fields)]);
}

/** Without a driver, the adapter uses the KV namespace SESSION. */
async function onCloudflareKv(): Promise<Place> {
  const persist = await mkdtemp(join(tmpdir(), 'coatcheck-kv-'));
  const before = await buildSite(workerSite({ driver: 'undefined' }));
  const after = await buildSite(workerSite({ driver: `cloudflareKvDriver(${OPTIONS})` }));
  let running: Workers;
  const run = async (dist: string, bindings = {}): Promise<Shop> => {
    const workers = await startWorkers(dist, { persist, bindings });
    running = workers;
    return { url: workers.urls[0]!, [Symbol.asyncDispose]: () => workers[Symbol.asyncDispose]() };
  };
  return {
    atomic: false,
    before: () => run(before.dist),
    after: (migrateFrom) => run(after.dist, migrating(migrateFrom)),
    async stored() {
      const namespace = await running.miniflare.getKVNamespace('SESSION', 'isolate-0');
      const { keys } = await namespace.list();
      return valuesOf(
        keys.map((key) => key.name),
        async (name) => (await namespace.get(name, 'text'))!,
      );
    },
    [Symbol.asyncDispose]: () => rm(persist, { recursive: true, force: true }),
  };
}

/** Without a driver, the adapter uses the blob store `astro-sessions`. */
async function onNetlifyBlobs(): Promise<Place> {
  const blobs = await startBlobs();
  const gateway = await startGateway(blobs);
  const siteWith = (session: string): SiteSpec => ({
    astro: '7-netlify',
    driver: '',
    files: {
      'astro.config.mjs': configWith(
        `import netlify from '@astrojs/netlify';\nimport { fromEnv, netlifyBlobsDriver } from '@coatcheck/session-netlify-blobs';`,
        'netlify({ devFeatures: { images: false, edgeFunctions: false, environmentVariables: false } })',
        session,
      ),
    },
  });
  const dist = fileURLToPath(new URL('../apps/astro-7-netlify/', import.meta.url));
  const before = { ...(await buildSite(siteWith(''))), dist };
  const after = { ...(await buildSite(siteWith(`driver: netlifyBlobsDriver(${OPTIONS})`))), dist };
  const launch = (built: Built, env = {}): Promise<Site> =>
    startSite(built, { env: { NETLIFY_BLOBS_CONTEXT: contextFor(gateway.port), ...env } });
  const get = (path: string): Promise<Response> =>
    fetch(`http://127.0.0.1:${blobs.port}/${SITE}/${path}`, { headers: { authorization: `Bearer ${TOKEN}` } });
  return {
    atomic: true,
    before: () => launch(before),
    after: (migrateFrom) => launch(after, migrating(migrateFrom)),
    async stored() {
      const names = ['site:astro-sessions', 'site:sessions'].map(async (store) => {
        const { blobs: found } = (await (await get(store)).json()) as { blobs: { key: string }[] };
        return found.map(({ key }) => `${store}/${key}`);
      });
      return valuesOf((await Promise.all(names)).flat(), async (name) => (await get(name)).text());
    },
    async [Symbol.asyncDispose]() {
      await gateway[Symbol.asyncDispose]();
      await blobs[Symbol.asyncDispose]();
    },
  };
}

function configWith(imports: string, adapter: string, session: string): string {
  return `${imports}
import { defineConfig, sessionDrivers } from 'astro/config';

export default defineConfig({
  output: 'server',
  adapter: ${adapter},
  devToolbar: { enabled: false },
  session: { ${session} },
});
`;
}

async function valuesOf(names: string[], read: (name: string) => Promise<string>): Promise<Map<string, string>> {
  return new Map(await Promise.all(names.map(async (name) => [name, await read(name)] as const)));
}
