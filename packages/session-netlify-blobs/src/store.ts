import { createError, type Lifetime, type ValueBackend } from '@coatcheck/session-core/driver';
import type { Store } from '@netlify/blobs';
import type { InBlobStore } from './client.ts';

/** The metadata key for the expiry of a blob, in epoch milliseconds. Other blobs in the store are unlikely to use this name. */
const EXPIRES = 'sessionExpires';

/**
 * How long a sweep keeps an expired record. A request that read the session before it expired may still write to it, and Netlify cannot
 * delete a blob on the condition that it has not changed. Core restores an expired record only if it was read less than a minute ago.
 */
const GRACE_MS = 120_000;

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
      return found.etag ? { value: found.data, version: found.etag } : getWithListedVersion(store, name);
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

    sweep: (limit, call) => inStore(call, (store) => sweepStore(store, limit, Date.now() + timeoutMs * 0.8)),
  };
}

/**
 * Reads a blob whose version is only in lists, as on Netlify's development server. It requests the list before the value: a version that
 * is older than its value only makes a write fail, but a newer one would overwrite a change.
 */
async function getWithListedVersion(store: Store, name: string): ReturnType<ValueBackend['get']> {
  // A list can miss a blob while another blob is written.
  for (let attempt = 0; attempt < 20; attempt++) {
    const { blobs } = await store.list({ prefix: name });
    const etag = blobs.find(({ key }) => key === name)?.etag;
    const value = await store.get(name, { type: 'text' });
    if (value === null) return null;
    if (etag) return { value, version: etag };
  }
  throw createError(
    'session-netlify-blobs',
    'refused',
    'Netlify Blobs returns no ETag for a session. Without it, concurrent changes could not be detected.',
  );
}

/** All possible last characters of a key: it ends with a hash in base64url. */
const SHARDS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'.split('');

/**
 * The name of the blob for a key. Its last character selects one of 64 folders, so that a sweep can start anywhere. Netlify's client puts
 * the name into a URL without encoding it, so special characters are written as `~<code point>~`.
 */
export function blobName(key: string): string {
  const name = key.replace(/[^\w:-]/gu, (char) => `~${char.codePointAt(0)!.toString(16)}~`);
  return `${name.slice(-1)}/${name}`;
}

const SWEEP_CONCURRENCY = 16;

/** Each sweep starts in a random folder, so that sweeps that run out of time still cover the whole store together. */
async function sweepStore(store: Store, limit: number, stopAt: number): Promise<number> {
  const start = Math.floor(Math.random() * SHARDS.length);
  const shards = [...SHARDS.slice(start), ...SHARDS.slice(0, start)];
  let removed = 0;
  const isDone = (): boolean => removed >= limit || Date.now() > stopAt;

  const removeIfExpired = async (name: string): Promise<void> => {
    const expires = (await store.getMetadata(name))?.metadata[EXPIRES];
    if (typeof expires !== 'number' || expires + GRACE_MS > Date.now() || isDone()) return;
    removed += 1;
    await store.delete(name);
  };
  const sweepShard = async (shard: string): Promise<void> => {
    for await (const { blobs } of store.list({ prefix: `${shard}/`, paginate: true })) {
      for (const { key } of blobs) {
        if (isDone()) return;
        await removeIfExpired(key);
      }
    }
  };
  const sweeper = async (): Promise<void> => {
    for (let shard; !isDone() && (shard = shards.shift());) await sweepShard(shard);
  };
  await Promise.all(Array.from({ length: SWEEP_CONCURRENCY }, sweeper));
  return removed;
}

function expiryIn(lifetimeMs: Lifetime): Record<string, number> {
  return lifetimeMs === 'never' ? {} : { [EXPIRES]: Date.now() + lifetimeMs };
}
