import type { Store } from '@netlify/blobs';
import { EXPIRES } from './store.ts';

/**
 * How long a sweep keeps an expired record. A request that read the session before it expired may still write to it, and Netlify cannot
 * delete a blob on the condition that it has not changed. Core restores an expired record only if it was read less than a minute ago.
 */
const GRACE_MS = 120_000;

/** All possible last characters of a key: it ends with a hash in base64url. */
const SHARDS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'.split('');

const SWEEP_CONCURRENCY = 16;

/** Each sweep starts in a random folder, so that sweeps that run out of time still cover the whole store together. */
export async function sweepStore(store: Store, limit: number, stopAt: number): Promise<number> {
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
