import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Miniflare } from 'miniflare';
import type { SiteSpec } from '@coatcheck/test-support/site';

/** Builds the test site with Astro's Cloudflare adapter and a KV namespace. */
export function workerSite({
  driver = 'cloudflareKvDriver()',
  namespace = 'SESSION',
  files = {},
}: { driver?: string; namespace?: string; files?: Record<string, string> } = {}): SiteSpec {
  const wrangler = {
    name: 'site',
    compatibility_date: '2026-07-01',
    compatibility_flags: ['nodejs_compat'],
    kv_namespaces: namespace ? [{ binding: namespace, id: 'sessions' }] : [],
  };
  return {
    astro: '7-cloudflare',
    driver,
    // Otherwise Wrangler and Miniflare request things from Cloudflare that no test needs.
    env: { CLOUDFLARE_CF_FETCH_ENABLED: 'false', WRANGLER_SEND_METRICS: 'false', CI: 'true' },
    files: {
      ...files,
      'wrangler.jsonc': JSON.stringify(wrangler),
      'astro.config.mjs': [
        `import cloudflare from '@astrojs/cloudflare';`,
        `import { cloudflareKvDriver, fromEnv } from '@coatcheck/session-cloudflare-kv';`,
        `import { defineConfig } from 'astro/config';`,
        `export default defineConfig({`,
        `  output: 'server',`,
        `  adapter: cloudflare({ imageService: 'passthrough' }),`,
        `  devToolbar: { enabled: false },`,
        `  session: { driver: ${driver} },`,
        `});`,
      ].join('\n'),
    },
  };
}

export interface Workers extends AsyncDisposable {
  /** One URL for each isolate. */
  urls: string[];
  miniflare: Miniflare;
}

export interface WorkersOptions {
  isolates?: number;
  namespace?: string;
  /** Environment variables of the Worker. */
  bindings?: Record<string, string>;
  /** The folder that keeps the data when the Workers end. */
  persist?: string;
}

/** Runs a built site in workerd, in one or more isolates with a shared KV. */
export async function startWorkers(
  dist: string,
  { isolates = 1, namespace = 'SESSION', bindings = {}, persist }: WorkersOptions = {},
): Promise<Workers> {
  const root = join(dist, 'server');
  const config = JSON.parse(await readFile(join(root, 'wrangler.json'), 'utf8')) as {
    main: string;
    compatibility_date: string;
    compatibility_flags: string[];
    durable_objects?: { bindings: { name: string; class_name: string }[] };
  };
  // All isolates use the objects of the first one.
  const objects = (config.durable_objects?.bindings ?? []).map(({ name, class_name: className }) => [
    name,
    { className, scriptName: 'isolate-0', useSQLite: true },
  ]);
  const files = (await readdir(root, { recursive: true })).filter((path) => path.endsWith('.mjs'));
  const ordered = [config.main, ...files.filter((path) => path !== config.main)];
  const modules = await Promise.all(
    ordered.map(async (path) => ({
      type: 'ESModule' as const,
      path: join(root, path),
      contents: await readFile(join(root, path), 'utf8'),
    })),
  );
  const names = Array.from({ length: isolates }, (_, index) => `isolate-${index}`);
  const miniflare = new Miniflare({
    cf: false,
    ...(persist !== undefined && { kvPersist: persist, durableObjectsPersist: persist }),
    workers: names.map((name) => ({
      name,
      modulesRoot: root,
      modules,
      compatibilityDate: config.compatibility_date,
      compatibilityFlags: config.compatibility_flags,
      bindings,
      kvNamespaces: namespace ? { [namespace]: 'sessions' } : {},
      durableObjects: Object.fromEntries(objects),
      serviceBindings: { ASSETS: () => new Response('no such asset', { status: 404 }) },
      unsafeDirectSockets: [{ host: '127.0.0.1', port: 0 }],
    })),
  });
  await miniflare.ready;
  const urls = await Promise.all(
    names.map(async (name) => String(await miniflare.unsafeGetDirectURL(name)).replace(/\/$/, '')),
  );
  return { urls, miniflare, [Symbol.asyncDispose]: () => miniflare.dispose() };
}
