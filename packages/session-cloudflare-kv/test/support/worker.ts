import { Miniflare } from 'miniflare';
import { bundleWorker } from '@coatcheck/test-support/worker';

export interface Isolate {
  /** Sends a request to the Worker. */
  fetch(path: string, init?: { method?: string; body?: string; headers?: Record<string, string> }): Promise<Answer>;
  /** The content of its KV. */
  stored(): Promise<Map<string, string>>;
}

export interface Answer {
  status: number;
  text: string;
  headers: Headers;
}

export interface WorkerOptions {
  compatibilityDate?: string;
  compatibilityFlags?: string[];
  /** More options of Miniflare for each Worker, such as bindings. */
  worker?: object;
  /** More options of Miniflare for all Workers, such as where to keep data. */
  shared?: object;
}

export interface Worker extends Isolate, AsyncDisposable {}

export interface Isolates extends AsyncDisposable {
  all: Isolate[];
}

/** Bundles a module of `test/workers`, or the one at a URL, as Wrangler does, and runs it in workerd. */
export async function startWorker(entry: string | URL, options: WorkerOptions = {}): Promise<Worker> {
  const isolates = await startIsolates(entry, 1, options);
  return { ...isolates.all[0]!, [Symbol.asyncDispose]: isolates[Symbol.asyncDispose] };
}

/** Starts several Workers with a shared KV. */
export async function startIsolates(
  entry: string | URL,
  count: number,
  { compatibilityDate = '2026-07-30', compatibilityFlags = ['nodejs_compat'], worker, shared }: WorkerOptions = {},
): Promise<Isolates> {
  const contents = await bundleWorker(new URL(entry, new URL('../workers/', import.meta.url)));
  const names = Array.from({ length: count }, (_, index) => `isolate-${index}`);
  const miniflare = new Miniflare({
    cf: false,
    ...shared,
    workers: names.map((name) => ({
      name,
      modules: [{ type: 'ESModule', path: 'worker.mjs', contents }],
      compatibilityDate,
      compatibilityFlags,
      kvNamespaces: { SESSION: 'sessions' },
      unsafeDirectSockets: [{ host: '127.0.0.1', port: 0 }],
      ...worker,
    })),
  });
  await miniflare.ready;
  const all = await Promise.all(
    names.map(async (name) => isolateAt(await miniflare.unsafeGetDirectURL(name), miniflare)),
  );
  return { all, [Symbol.asyncDispose]: () => miniflare.dispose() };
}

function isolateAt(url: URL, miniflare: Miniflare): Isolate {
  return {
    stored: () => storedIn(miniflare),
    async fetch(path, init = {}) {
      const signal = AbortSignal.timeout(110_000);
      // Each request uses a new connection, because workerd could close an idle one just when the next request is sent.
      const headers = { ...init.headers, connection: 'close' };
      const response = await fetch(new URL(path, url), { redirect: 'manual', signal, ...init, headers });
      return { status: response.status, text: await response.text(), headers: response.headers };
    },
  };
}

async function storedIn(miniflare: Miniflare): Promise<Map<string, string>> {
  const kv = await miniflare.getKVNamespace('SESSION', 'isolate-0');
  const { keys } = await kv.list();
  return new Map(await Promise.all(keys.map(async ({ name }) => [name, (await kv.get(name, 'text')) ?? ''] as const)));
}
