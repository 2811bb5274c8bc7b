import {
  type DriverStore,
  type Lifetime,
  type OpenContext,
  type Resolved,
  type ValueBackend,
  valueStore,
} from '@coatcheck/session-core/driver';
import { type InBlobStore, inBlobStore } from './client.ts';
import { checkTogether, type NetlifyBlobsDriverConfig } from './options.ts';

/** Opens the store that the options name. */
export async function openStore(
  options: Resolved<NetlifyBlobsDriverConfig>,
  { timeoutMs }: Pick<OpenContext, 'timeoutMs'>,
): Promise<DriverStore> {
  checkTogether(options);
  const client = await import('@netlify/blobs');
  const inLegacyStore = (name = 'astro-sessions') => inBlobStore(client, { ...options, name, deployScoped: false });
  return {
    ...valueStore(blobBackend(inBlobStore(client, options), timeoutMs)),
    legacySessions: {
      read: (id, base, call) => inLegacyStore(base)(call, (store) => store.get(id)),
      remove: (id, base, call) => inLegacyStore(base)(call, (store) => store.delete(id)),
    },
  };
}

/** The metadata key for the expiry of a blob, in epoch milliseconds. Other blobs in the store are unlikely to use this name. */
export const EXPIRES = 'sessionExpires';

/**
 * Netlify Blobs as a backend of whole values: one blob per record, with compare-and-set by ETag.
 *
 * @param timeoutMs the timeout of one operation, in milliseconds. A sweep uses 80% of it.
 */
export function blobBackend(inStore: InBlobStore, timeoutMs: number): ValueBackend {
  const get: ValueBackend['get'] = (key, call) =>
    inStore(call, async (store) => {
      const name = blobName(key);
      const found = await store.getWithMetadata(name);
      if (!found) return null;
      if (found.etag) return { value: found.data, version: found.etag };
      return (await import('./listed-version.ts')).getWithListedVersion(store, name);
    });

  return {
    compareAndSet: true,
    get,

    async set(key, value, call) {
      const outcome = await inStore(call, async (store, status) => {
        const condition = call.version === null ? { onlyIfNew: true } : { onlyIfMatch: call.version as string };
        const metadata = expiryIn(call.lifetimeMs);
        const { modified } = await store.set(blobName(key), value, { ...condition, metadata });
        return modified ? 'stored' : status.ambiguous ? 'ambiguous' : 'refused';
      });
      // The conflict may be with an earlier attempt of this same write, which was stored although its response was lost.
      return outcome === 'ambiguous' ? (await get(key, call))?.value === value : outcome === 'stored';
    },

    remove: (key, call) => inStore(call, (store) => store.delete(blobName(key))),

    async sweep(limit, call) {
      const stopAt = Date.now() + timeoutMs * 0.8;
      const { sweepStore } = await import('./sweep.ts');
      return inStore(call, (store) => sweepStore(store, limit, stopAt));
    },
  };
}

/**
 * The name of the blob for a key. Its last character selects one of 64 folders, so that a sweep can start anywhere. Netlify's client puts
 * the name into a URL without encoding it, so special characters are written as `~<code point>~`.
 */
export function blobName(key: string): string {
  const name = key.replace(/[^\w:-]/gu, (char) => `~${char.codePointAt(0)!.toString(16)}~`);
  return `${name.slice(-1)}/${name}`;
}

function expiryIn(lifetimeMs: Lifetime): Record<string, number> {
  return lifetimeMs === 'never' ? {} : { [EXPIRES]: Date.now() + lifetimeMs };
}
