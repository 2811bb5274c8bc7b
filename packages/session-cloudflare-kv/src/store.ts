import {
  legacyKey,
  pause,
  valueStore,
  type DriverStore,
  type Lifetime,
  type StoreCall,
} from '@coatcheck/session-core/driver';
import type { KvNamespace } from './options.ts';

/** https://developers.cloudflare.com/kv/platform/limits/ */
const MAX_VALUE_BYTES = 25 * 2 ** 20;
/** A record that expires sooner is still correct, because it contains its own expiry. */
const MIN_EXPIRATION_SECONDS = 60;
/** How long a location may answer reads from its cache. KV allows no shorter time; its default is twice as long. */
const MIN_CACHE_SECONDS = 30;
/** KV accepts 32-bit numbers. So it drops every record with an expiry after 68 years at the latest. */
const MAX_EXPIRATION_SECONDS = 2 ** 31 - 1;

/** KV accepts one write per second to a key, and refuses others with 429. */
const WRITE_EVERY_MS = 1000;

/**
 * A store on Workers KV. KV has no compare-and-set, so changes are atomic within one isolate only.
 *
 * @param timeoutMs the timeout of one operation, in milliseconds. Writes that KV refuses with 429 are repeated until shortly before the
 *   deadline.
 */
export function kvStore(kv: KvNamespace, timeoutMs: number): DriverStore {
  const store = valueStore({
    compareAndSet: false,

    async get(key) {
      const value = await kv.get(key, { cacheTtl: MIN_CACHE_SECONDS });
      return value === null ? null : { value };
    },

    async set(key, value, { lifetimeMs, signal }) {
      await checkSize(value);
      await untilAccepted(() => kv.put(key, value, expiration(lifetimeMs)), timeoutMs, { signal });
      return true;
    },

    remove: (key, call) => untilAccepted(() => kv.delete(key), timeoutMs, call),
  });
  return {
    ...store,
    legacySessions: {
      read: (id, base) => kv.get(legacyKey(id, base), { cacheTtl: MIN_CACHE_SECONDS }),
      remove: (id, base, call) => untilAccepted(() => kv.delete(legacyKey(id, base)), timeoutMs, call),
    },
  };
}

function expiration(lifetimeMs: Lifetime): { expirationTtl?: number } {
  if (lifetimeMs === 'never') return {};
  const seconds = Math.ceil(lifetimeMs / 1000);
  return { expirationTtl: Math.min(Math.max(seconds, MIN_EXPIRATION_SECONDS), MAX_EXPIRATION_SECONDS) };
}

async function checkSize(value: string): Promise<void> {
  // A UTF-16 code unit takes at most three bytes in UTF-8. So short values need no encoding to be checked.
  if (value.length * 3 <= MAX_VALUE_BYTES) return;
  const bytes = new TextEncoder().encode(value).length;
  if (bytes <= MAX_VALUE_BYTES) return;
  throw (await problems()).tooLarge(bytes, MAX_VALUE_BYTES);
}

/** Repeats a write that KV refuses with 429 because the key was written too recently, until shortly before the deadline. */
async function untilAccepted(write: () => Promise<void>, timeoutMs: number, call: StoreCall): Promise<void> {
  const lastStartAt = Date.now() + timeoutMs - 1.5 * WRITE_EVERY_MS;
  for (;;) {
    try {
      return await write();
    } catch (error) {
      if (isQuotaExceeded(error)) throw (await problems()).quotaExceeded(error);
      if (!isTooManyRequests(error)) throw error;
      if (Date.now() > lastStartAt) throw (await problems()).tooManyWrites(error);
      await pause(WRITE_EVERY_MS * (0.75 + Math.random() / 2), call);
      if (call.signal.aborted) throw error;
    }
  }
}

const problems = () => import('./problems.ts');

// The message is all that KV gives: `KV PUT failed: 429 Too Many Requests`.
function isTooManyRequests(error: unknown): boolean {
  return error instanceof Error && /\b429\b/.test(error.message);
}

function isQuotaExceeded(error: unknown): boolean {
  return error instanceof Error && /limit exceeded/i.test(error.message);
}
