import type { D1Database } from '@cloudflare/workers-types';
import { Miniflare } from 'miniflare';

export interface D1 extends AsyncDisposable {
  /** The databases by the names of their bindings, as Wrangler's `getPlatformProxy()` returns them. */
  databases: Record<string, D1Database>;
}

/** Starts workerd, and makes its D1 available in Node. */
export async function startD1(...names: string[]): Promise<D1> {
  const miniflare = new Miniflare({ modules: true, script: '', d1Databases: names, cf: false });
  const entries = names.map(async (name) => [name, await miniflare.getD1Database(name)] as const);
  return {
    databases: Object.fromEntries(await Promise.all(entries)) as unknown as Record<string, D1Database>,
    [Symbol.asyncDispose]: () => miniflare.dispose(),
  };
}
