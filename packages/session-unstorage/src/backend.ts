import {
  createError,
  legacyKey,
  pause,
  sha256Of,
  type LegacySessions,
  type Lifetime,
  type ValueBackend,
} from '@coatcheck/session-core/driver';
import type { Driver } from 'unstorage';

/**
 * How long a value stays after it has expired before a sweep takes it. Without compare-and-set that is what keeps a sweep from
 * removing what another process has just renewed.
 */
const GRACE_MS = 60_000;

/**
 * A value that is not whole may be one that is being written, which fs and fs-lite do in place: it is read again until nothing has
 * changed it for this long. At most half of the deadline, so that the error says more than that time is up.
 */
const STILL_AFTER_MS = 1000;
const READ_AGAIN_EVERY_MS = 10;

/** An unstorage driver as a backend of whole values. */
export function unstorageBackend(driver: Driver, timeoutMs: number): ValueBackend {
  /** The key that was swept last: the next sweep goes on behind it. */
  let position = '';

  return {
    compareAndSet: false,

    async get(key, { signal }) {
      let seen: string | undefined;
      let seenAt = 0;
      for (;;) {
        const stored = settled(await driver.getItem(key, {}));
        if (stored === null || stored === undefined) return null;
        const framed = unframe(stored);
        if (framed) return { value: framed.value };
        if (typeof stored !== 'string') break;
        if (stored !== seen) [seen, seenAt] = [stored, performance.now()];
        else if (performance.now() - seenAt >= Math.min(STILL_AFTER_MS, timeoutMs / 2)) break;
        await pause(READ_AGAIN_EVERY_MS, { signal });
        signal.throwIfAborted();
      }
      return {
        unreadable: createError(
          'session-unstorage',
          'refused',
          'The storage did not give back what was stored: the value is cut off or mixed, or something else is under its key. Does another ' +
            'program write there, or did one end in the middle of a write?',
        ),
      };
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

/** What Astro's own driver left, which is an unstorage driver as well. */
export function legacySessions(driver: Driver): LegacySessions {
  return {
    read: async (id, base) => settled(await driver.getItem(legacyKey(id, base), {})),
    async remove(id, base) {
      settled(await driver.removeItem!(legacyKey(id, base), {}));
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

// Words in front, so that no client takes it for JSON and parses it, and the hash, so that half a value is known from a whole one, and so is
// one that was read while it was replaced: the beginning of the old and the end of the new one, of the same length.
function frame(value: string, lifetimeMs: Lifetime): string {
  const until =
    lifetimeMs === 'never' ? lifetimeMs : Math.min(Math.ceil(Date.now() + lifetimeMs), Number.MAX_SAFE_INTEGER);
  return `coatcheck ${until} ${sha256Of(value)} ${value}`;
}

function unframe(stored: unknown): { value: string; until: number } | undefined {
  if (typeof stored !== 'string') return undefined;
  const [head, until, hash] = /^coatcheck (\d+|never) ([\w-]{43}) /.exec(stored) ?? [];
  if (head === undefined) return undefined;
  const value = stored.slice(head.length);
  return sha256Of(value) === hash ? { value, until: until === 'never' ? Infinity : Number(until) } : undefined;
}
