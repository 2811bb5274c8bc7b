import { Miniflare } from 'miniflare';
import { bundleWorker } from './worker.ts';

/** One Worker in workerd. */
export interface Isolate {
  /** Where the Worker answers. */
  url: URL;
  /** Sends a request to the Worker. */
  fetch(path: string, init?: { method?: string; body?: string; headers?: Record<string, string> }): Promise<Answer>;
}

export interface Answer {
  status: number;
  text: string;
  headers: Headers;
}

/** What Workers are bound to, by the names of the bindings. All Workers of a test share it. */
export interface Resources {
  kvNamespaces?: Record<string, string>;
  d1Databases?: Record<string, string | RemoteDatabase>;
  durableObjects?: Record<string, ObjectClass>;
  /** Workers in other processes. A Worker can call their methods. */
  serviceBindings?: Record<string, { external: { address: string; http: object } }>;
  /** Environment variables. */
  bindings?: Record<string, string>;
}

/** A D1 database in another process. All calls go to this address, over HTTP. */
export interface RemoteDatabase {
  id: string;
  remoteProxyConnectionString: URL;
}

/** A class of Durable Objects, and the Worker in which they run. */
export interface ObjectClass {
  className: string;
  scriptName: string;
  useSQLite: boolean;
}

/** The first of several Workers. The Durable Objects of all of them run in it. */
export const FIRST_ISOLATE = 'isolate-0';

export interface WorkerOptions {
  compatibilityDate?: string;
  compatibilityFlags?: string[];
  /** The folder that keeps the data of D1 and of Durable Objects when the Workers end. */
  persist?: string | undefined;
}

export interface Isolates extends AsyncDisposable {
  all: Isolate[];
  miniflare: Miniflare;
}

/** Bundles a module as Wrangler does, and runs it in workerd, in several Workers with the same resources. */
export async function startIsolates(
  entry: URL,
  count: number,
  resources: Resources,
  { compatibilityDate = '2026-07-30', compatibilityFlags = ['nodejs_compat'], persist }: WorkerOptions = {},
): Promise<Isolates> {
  const contents = await bundleWorker(entry);
  const names = Array.from({ length: count }, (_, index) => `isolate-${index}`);
  const miniflare = new Miniflare({
    cf: false,
    ...(persist !== undefined && { d1Persist: persist, durableObjectsPersist: persist }),
    workers: names.map((name) => ({
      name,
      modules: [{ type: 'ESModule', path: 'worker.mjs', contents }],
      compatibilityDate,
      compatibilityFlags,
      ...resources,
      unsafeDirectSockets: [{ host: '127.0.0.1', port: 0 }],
    })),
  });
  await miniflare.ready;
  const all = await Promise.all(names.map(async (name) => isolateAt(await miniflare.unsafeGetDirectURL(name))));
  return { all, miniflare, [Symbol.asyncDispose]: () => miniflare.dispose() };
}

function isolateAt(url: URL): Isolate {
  return {
    url,
    async fetch(path, init = {}) {
      const signal = AbortSignal.timeout(110_000);
      // Each request uses a new connection, because workerd could close an idle one just when the next request is sent.
      const headers = { ...init.headers, connection: 'close' };
      const response = await fetch(new URL(path, url), { redirect: 'manual', signal, ...init, headers });
      return { status: response.status, text: await response.text(), headers: response.headers };
    },
  };
}
