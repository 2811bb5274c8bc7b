import { createError, formerKey, type Lifetime, type ValueBackend } from '@coatcheck/session-core';
import type { Driver } from 'unstorage';

/**
 * How long a value stays after it has expired before a sweep takes it. Without compare-and-set that is what keeps a sweep from
 * removing what another process has just renewed.
 */
const GRACE_MS = 60_000;

/** When a value that is not whole is read again, for as long as a write may be under way; fs and fs-lite show half of one. */
const READ_AGAIN_AFTER_MS = [5, 10, 20, 50, 100, 200];

/** An unstorage driver as a backend of whole values. */
export function unstorageBackend(driver: Driver, timeoutMs: number): ValueBackend {
  /** The key that was swept last: the next sweep goes on behind it. */
  let position = '';

  return {
    compareAndSet: false,

    async get(key, { signal }) {
      for (const ms of [...READ_AGAIN_AFTER_MS, undefined]) {
        const stored = settled(await driver.getItem(key, {}));
        if (stored === null || stored === undefined) return null;
        const framed = unframe(stored);
        if (framed) return { value: framed.value };
        if (ms === undefined) break;
        await pause(ms);
        signal.throwIfAborted();
      }
      throw createError(
        'session-unstorage',
        'refused',
        'The storage did not give back what was stored: the value is cut off, or something else is under its key. Does another program ' +
          'write there, or did one end in the middle of a write?',
      );
    },

    async set(key, value, { lifetimeMs }) {
      // In seconds: those of unstorage's drivers that can expire values by themselves take it, the others leave it alone.
      const options = lifetimeMs === 'never' ? {} : { ttl: Math.max(Math.ceil(lifetimeMs / 1000), 1) };
      settled(await driver.setItem!(key, frame(value, lifetimeMs), options));
      return true;
    },

    async remove(key) {
      settled(await driver.removeItem!(key, {}));
    },

    former: {
      read: async (id, base) => settled(await driver.getItem(formerKey(id, base), {})),
      async remove(id, base) {
        settled(await driver.removeItem!(formerKey(id, base), {}));
      },
    },

    async sweep(limit, { signal }) {
      const stopAt = Date.now() + timeoutMs / 2;
      const keys = (settled(await driver.getKeys('', {})) ?? []).filter((key) => OUR_KEY.test(key)).sort();
      let count = 0;
      for (const key of [...keys.filter((it) => it > position), ...keys.filter((it) => it <= position)]) {
        if (count >= limit || Date.now() >= stopAt || signal.aborted) break;
        const framed = unframe(settled(await driver.getItem(key, {})));
        if (framed && framed.until + GRACE_MS < Date.now()) {
          settled(await driver.removeItem!(key, {}));
          count++;
        }
        position = key;
      }
      return count;
    },

    async close() {
      await driver.dispose?.();
    },
  };
}

/** Prefix and hash, and the same for a tombstone: a sweep does not read what others keep in the same place. */
const OUR_KEY = /[\w-]{43}(\.retired)?$/;

// fs and fs-lite return the errors of reading and removing in place of the result.
function settled<Result>(result: Result): Exclude<Result, Error> {
  if (result instanceof Error) throw result;
  return result as Exclude<Result, Error>;
}

// Words in front, so that no client takes it for JSON and parses it, and the length, so that half a value is known from a whole one.
function frame(value: string, lifetimeMs: Lifetime): string {
  const until =
    lifetimeMs === 'never' ? lifetimeMs : Math.min(Math.ceil(Date.now() + lifetimeMs), Number.MAX_SAFE_INTEGER);
  return `coatcheck ${until} ${value.length} ${value}`;
}

function unframe(stored: unknown): { value: string; until: number } | undefined {
  if (typeof stored !== 'string') return undefined;
  const [head, until, length] = /^coatcheck (\d+|never) (\d+) /.exec(stored) ?? [];
  if (head === undefined || stored.length - head.length !== Number(length)) return undefined;
  return { value: stored.slice(head.length), until: until === 'never' ? Infinity : Number(until) };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
