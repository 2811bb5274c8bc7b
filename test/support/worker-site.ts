import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Miniflare } from 'miniflare';
import { FIRST_ISOLATE, type ObjectClass, type Resources } from './isolates.ts';
import type { SiteSpec } from './site.ts';

export interface WorkerSiteOptions {
  /** The version of Astro. Default: 7. */
  astro?: 6 | 7;
  /** The expression after `driver:` in `astro.config.mjs`. */
  driver: string;
  /** The import of what `driver` uses. */
  imports: string;
  /** What the site adds to `wrangler.jsonc`. */
  wrangler: Record<string, unknown>;
  /** Files to add to the site, by path. */
  files?: Record<string, string>;
}

/** The test site with Astro's Cloudflare adapter. */
export function workerSiteWith({ astro = 7, driver, imports, wrangler, files = {} }: WorkerSiteOptions): SiteSpec {
  const config = {
    name: 'site',
    compatibility_date: '2026-07-01',
    compatibility_flags: ['nodejs_compat'],
    ...wrangler,
  };
  return {
    astro: `${astro}-cloudflare`,
    driver,
    // Otherwise Wrangler and Miniflare request things from Cloudflare that no test needs.
    env: { CLOUDFLARE_CF_FETCH_ENABLED: 'false', WRANGLER_SEND_METRICS: 'false', CI: 'true' },
    files: {
      ...files,
      'wrangler.jsonc': JSON.stringify(config),
      'astro.config.mjs': [
        `import cloudflare from '@astrojs/cloudflare';`,
        imports,
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
  resources: Resources;
  /** The folder that keeps the data of KV and of Durable Objects when the Workers end. */
  persist?: string | undefined;
}

/** Runs a built site in workerd, in one or more isolates with the same resources. */
export async function startWorkersWith(
  dist: string,
  { isolates = 1, resources, persist }: WorkersOptions,
): Promise<Workers> {
  const root = join(dist, 'server');
  const config = JSON.parse(await readFile(join(root, 'wrangler.json'), 'utf8')) as {
    main: string;
    compatibility_date: string;
    compatibility_flags: string[];
    durable_objects?: { bindings: { name: string; class_name: string }[] };
  };
  const durableObjects: Record<string, ObjectClass> = {};
  for (const { name, class_name: className } of config.durable_objects?.bindings ?? []) {
    durableObjects[name] = { className, scriptName: FIRST_ISOLATE, useSQLite: true };
  }
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
      durableObjects,
      ...resources,
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
