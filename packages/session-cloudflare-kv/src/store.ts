import {
  createError,
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
const MIN_EXPIRATION_SECONDS = 60;
/** For how long a location may answer from its cache; KV's own default is twice as long. */
const MIN_CACHE_SECONDS = 30;
/** KV takes 32 bits. The record itself says when it ends. */
const MAX_EXPIRATION_SECONDS = 2 ** 31 - 1;

/** KV takes one write a second and key, and refuses the next. */
const WRITE_EVERY_MS = 1000;

/** Sessions in Workers KV, which has no compare-and-set: atomic within an isolate only. */
export function kvStore(kv: KvNamespace, timeoutMs: number): DriverStore {
  const store = valueStore({
    compareAndSet: false,

    async get(key) {
      const value = await kv.get(key, { cacheTtl: MIN_CACHE_SECONDS });
      return value === null ? null : { value };
    },

    async set(key, value, { lifetimeMs, signal }) {
      checkSize(value);
      await untilTaken(() => kv.put(key, value, expiration(lifetimeMs)), timeoutMs, { signal });
      return true;
    },

    remove: (key, call) => untilTaken(() => kv.delete(key), timeoutMs, call),
  });
  return {
    ...store,
    legacySessions: {
      read: (id, base) => kv.get(legacyKey(id, base), { cacheTtl: MIN_CACHE_SECONDS }),
      remove: (id, base, call) => untilTaken(() => kv.delete(legacyKey(id, base)), timeoutMs, call),
    },
  };
}

function expiration(lifetimeMs: Lifetime): { expirationTtl?: number } {
  if (lifetimeMs === 'never') return {};
  const seconds = Math.ceil(lifetimeMs / 1000);
  return { expirationTtl: Math.min(Math.max(seconds, MIN_EXPIRATION_SECONDS), MAX_EXPIRATION_SECONDS) };
}

function checkSize(value: string): void {
  // A UTF-16 unit takes three bytes at most.
  if (value.length * 3 <= MAX_VALUE_BYTES) return;
  const bytes = new TextEncoder().encode(value).length;
  if (bytes <= MAX_VALUE_BYTES) return;
  throw createError(
    'session-cloudflare-kv',
    'invalid-data',
    `The session takes ${bytes} bytes, and KV stores no value of more than ${MAX_VALUE_BYTES} (25 MiB). Nothing was stored. Keep large ` +
      'values elsewhere, and their names in the session.',
  );
}

/** Writes again while KV says that the key was written too recently, as long as the deadline leaves time for it. */
async function untilTaken(write: () => Promise<void>, timeoutMs: number, call: StoreCall): Promise<void> {
  const lastStartAt = Date.now() + timeoutMs - 1.5 * WRITE_EVERY_MS;
  for (;;) {
    try {
      return await write();
    } catch (error) {
      if (isUsedUp(error)) throw planUsedUp(error);
      if (!isTooSoon(error)) throw error;
      if (Date.now() > lastStartAt) throw tooManyWrites(error);
      await pause(WRITE_EVERY_MS * (0.75 + Math.random() / 2), call);
      if (call.signal.aborted) throw error;
    }
  }
}

// All that KV says is `KV PUT failed: 429 Too Many Requests`.
function isTooSoon(error: unknown): boolean {
  return error instanceof Error && /\b429\b/.test(error.message);
}

function isUsedUp(error: unknown): boolean {
  return error instanceof Error && /limit exceeded/i.test(error.message);
}

function planUsedUp(cause: unknown): Error {
  return createError(
    'session-cloudflare-kv',
    'refused',
    "What the account's plan allows KV is used up, as the cause says. Nothing was stored. A limit of the day ends at midnight UTC; a larger " +
      'plan has a higher one.',
    { cause },
  );
}

function tooManyWrites(cause: unknown): Error {
  return createError(
    'session-cloudflare-kv',
    'refused',
    'KV takes one write a second and key, and this session is written more often: KV answered 429 until the deadline. Nothing was ' +
      'stored. Write to the session less often, or keep it in a backend that takes more.',
    { cause },
  );
}
