import { createError, type Lifetime, type ValueBackend } from '@coatcheck/session-core/driver';
import type { Store } from '@netlify/blobs';
import type { InBlobStore } from './client.ts';

/** Metadata of a blob: when it may be swept, in epoch milliseconds. A name that no other blob in the store is likely to use. */
const EXPIRES = 'sessionExpires';

/**
 * How long an expired record is kept: a request that read the session while it lived may still write to it, and Netlify cannot remove a
 * blob on the condition that nobody has. Core writes nothing that was read more than a minute ago.
 */
const KEPT_MS = 120_000;

/** One blob a record, compared and set by its ETag. */
export function blobBackend(inStore: InBlobStore, timeoutMs: number): ValueBackend {
  const get: ValueBackend['get'] = (key, call) =>
    inStore(call, async (store) => {
      const name = blobName(key);
      const found = await store.getWithMetadata(name);
      if (!found) return null;
      return found.etag ? { value: found.data, version: found.etag } : getAsListed(store, name);
    });

  return {
    compareAndSet: true,
    get,

    async set(key, value, call) {
      const done = await inStore(call, async (store, course) => {
        const condition = call.version === null ? { onlyIfNew: true } : { onlyIfMatch: call.version as string };
        const metadata = expiryIn(call.lifetimeMs);
        const { modified } = await store.set(blobName(key), value, { ...condition, metadata });
        return modified ? 'stored' : course.unclear ? 'unclear' : 'refused';
      });
      // What stands in the way may be the first attempt of this very write, whose answer was lost.
      return done === 'unclear' ? (await get(key, call))?.value === value : done === 'stored';
    },

    remove: (key, call) => inStore(call, (store) => store.delete(blobName(key))),

    sweep: (limit, call) => inStore(call, (store) => sweepStore(store, limit, Date.now() + timeoutMs * 0.8)),
  };
}

/**
 * Netlify's development server tells versions only in lists. The list is asked for first: a version that is too old for its value only
 * makes the write fail.
 */
async function getAsListed(store: Store, name: string): ReturnType<ValueBackend['get']> {
  // A list may lack a blob while another is written.
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
    'Netlify Blobs tells no ETag of a session: concurrent changes could not be told apart.',
  );
}

/** The characters that a record's key, a hash in base64url, can end with. */
const SHARDS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'.split('');

/**
 * The key, in one of 64 folders by its last character, so that a sweep can begin anywhere. Netlify's client puts the name into a URL as
 * it is: what has a meaning there is written as `~<code point>~`.
 */
export function blobName(key: string): string {
  const name = key.replace(/[^\w:-]/gu, (char) => `~${char.codePointAt(0)!.toString(16)}~`);
  return `${name.slice(-1)}/${name}`;
}

const AT_ONCE = 16;

/** Every run begins at another place, so that runs whose time ends early see all of the store between them. */
async function sweepStore(store: Store, limit: number, stopAt: number): Promise<number> {
  const start = Math.floor(Math.random() * SHARDS.length);
  const shards = [...SHARDS.slice(start), ...SHARDS.slice(0, start)];
  let removed = 0;
  const isOver = (): boolean => removed >= limit || Date.now() > stopAt;

  const removeIfExpired = async (name: string): Promise<void> => {
    const expires = (await store.getMetadata(name))?.metadata[EXPIRES];
    if (typeof expires !== 'number' || expires + KEPT_MS > Date.now() || isOver()) return;
    removed += 1;
    await store.delete(name);
  };
  const sweepShard = async (shard: string): Promise<void> => {
    for await (const { blobs } of store.list({ prefix: `${shard}/`, paginate: true })) {
      for (const { key } of blobs) {
        if (isOver()) return;
        await removeIfExpired(key);
      }
    }
  };
  const sweeper = async (): Promise<void> => {
    for (let shard; !isOver() && (shard = shards.shift());) await sweepShard(shard);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, sweeper));
  return removed;
}

function expiryIn(lifetimeMs: Lifetime): Record<string, number> {
  return lifetimeMs === 'never' ? {} : { [EXPIRES]: Date.now() + lifetimeMs };
}
