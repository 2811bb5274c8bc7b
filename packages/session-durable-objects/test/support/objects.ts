import type { SessionNamespace } from '@coatcheck/session-durable-objects/runtime';
import { FIRST_ISOLATE, startIsolates, type Isolates } from '@coatcheck/test-support/isolates';
import { bundleWorker } from '@coatcheck/test-support/worker';
import { Miniflare } from 'miniflare';

export type { Isolate } from '@coatcheck/test-support/isolates';

export interface ObjectsOptions {
  isolates?: number;
  compatibilityDate?: string;
  /** Whether the class is in `new_sqlite_classes`. */
  useSQLite?: boolean;
  /** The folder that keeps the data when the Workers end. */
  persist?: string;
}

/** Runs a module of `test/workers` in workerd, in one or more isolates. The objects of all of them run in the first one. */
export async function startObjects(
  entry: string,
  { isolates = 1, useSQLite = true, ...options }: ObjectsOptions = {},
): Promise<Isolates> {
  const objects = { className: 'InspectedSession', scriptName: FIRST_ISOLATE, useSQLite };
  const module = new URL(`../workers/${entry}`, import.meta.url);
  const resources = { durableObjects: { SESSIONS: objects }, kvNamespaces: { SESSION: 'sessions' } };
  return startIsolates(module, isolates, resources, options);
}

export interface Namespace extends AsyncDisposable {
  /** The binding, as Wrangler's `getPlatformProxy()` returns it. */
  namespace: SessionNamespace;
}

/** Starts workerd, and makes its Durable Objects available in Node. */
export async function startNamespace(): Promise<Namespace> {
  const script = await bundleWorker(new URL('../workers/sessions.ts', import.meta.url));
  const miniflare = new Miniflare({
    cf: false,
    modules: true,
    script,
    compatibilityDate: '2026-07-30',
    compatibilityFlags: ['nodejs_compat'],
    durableObjects: { SESSIONS: { className: 'InspectedSession', useSQLite: true } },
  });
  return {
    namespace: await miniflare.getDurableObjectNamespace('SESSIONS'),
    [Symbol.asyncDispose]: () => miniflare.dispose(),
  };
}
