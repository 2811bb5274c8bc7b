import { startIsolates, type Isolates } from '../../../session-cloudflare-kv/test/support/worker.ts';

export type { Isolate } from '../../../session-cloudflare-kv/test/support/worker.ts';

export interface ObjectsOptions {
  isolates?: number;
  compatibilityDate?: string;
  /** The folder that keeps the data when the Workers end. */
  persist?: string;
}

/** Runs a module of `test/workers` in workerd, in one or more isolates. The objects of all of them run in the first one. */
export async function startObjects(
  entry: string,
  { isolates = 1, persist, ...options }: ObjectsOptions = {},
): Promise<Isolates> {
  return startIsolates(new URL(`../workers/${entry}`, import.meta.url), isolates, {
    ...options,
    worker: {
      durableObjects: { SESSIONS: { className: 'InspectedSession', scriptName: 'isolate-0', useSQLite: true } },
    },
    shared: persist === undefined ? {} : { durableObjectsPersist: persist },
  });
}
