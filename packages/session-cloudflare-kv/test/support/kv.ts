import { Miniflare } from 'miniflare';

export interface Kv extends AsyncDisposable {
  /** The namespaces by the names of their bindings, as Wrangler's `getPlatformProxy()` returns them. */
  namespaces: Record<string, Awaited<ReturnType<Miniflare['getKVNamespace']>>>;
}

/** Starts workerd, and makes its Workers KV available in Node. */
export async function startKv(...names: string[]): Promise<Kv> {
  const miniflare = new Miniflare({ modules: true, script: '', kvNamespaces: names, cf: false });
  const entries = names.map(async (name) => [name, await miniflare.getKVNamespace(name)] as const);
  return {
    namespaces: Object.fromEntries(await Promise.all(entries)),
    [Symbol.asyncDispose]: () => miniflare.dispose(),
  };
}
