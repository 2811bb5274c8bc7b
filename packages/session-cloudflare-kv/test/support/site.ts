import type { SiteSpec } from '@coatcheck/test-support/site';
import { startWorkersWith, workerSiteWith, type Workers } from '@coatcheck/test-support/worker-site';

export type { Workers } from '@coatcheck/test-support/worker-site';

/** The test site with Astro's Cloudflare adapter and a KV namespace. */
export function workerSite({
  astro = 7,
  driver = 'cloudflareKvDriver()',
  namespace = 'SESSION',
  files = {},
}: { astro?: 6 | 7; driver?: string; namespace?: string; files?: Record<string, string> } = {}): SiteSpec {
  return workerSiteWith({
    astro,
    driver,
    imports: `import { cloudflareKvDriver, fromEnv } from '@coatcheck/session-cloudflare-kv';`,
    wrangler: { kv_namespaces: namespace ? [{ binding: namespace, id: 'sessions' }] : [] },
    files,
  });
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
export function startWorkers(
  dist: string,
  { isolates = 1, namespace = 'SESSION', bindings = {}, persist }: WorkersOptions = {},
): Promise<Workers> {
  const kvNamespaces: Record<string, string> = namespace ? { [namespace]: 'sessions' } : {};
  return startWorkersWith(dist, { isolates, resources: { bindings, kvNamespaces }, persist });
}
