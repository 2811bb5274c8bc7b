import {
  startIsolates as start,
  type Isolate,
  type Isolates,
  type WorkerOptions,
} from '@coatcheck/test-support/isolates';

export type { Answer, Isolate, Isolates } from '@coatcheck/test-support/isolates';

export interface Worker extends Isolate, AsyncDisposable {
  /** The content of its KV. */
  stored(): Promise<Map<string, string>>;
}

/** Starts a module of `test/workers` in workerd. */
export async function startWorker(entry: string, options?: WorkerOptions): Promise<Worker> {
  const isolates = await startIsolates(entry, 1, options);
  return {
    ...isolates.all[0]!,
    stored: () => storedIn(isolates),
    [Symbol.asyncDispose]: isolates[Symbol.asyncDispose],
  };
}

/** Starts several Workers with a shared KV. */
export function startIsolates(entry: string, count: number, options?: WorkerOptions): Promise<Isolates> {
  const module = new URL(`../workers/${entry}`, import.meta.url);
  return start(module, count, { kvNamespaces: { SESSION: 'sessions' } }, options);
}

async function storedIn({ miniflare }: Isolates): Promise<Map<string, string>> {
  const kv = await miniflare.getKVNamespace('SESSION', 'isolate-0');
  const { keys } = await kv.list();
  return new Map(await Promise.all(keys.map(async ({ name }) => [name, (await kv.get(name, 'text')) ?? ''] as const)));
}
