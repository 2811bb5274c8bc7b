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
 * How long a sweep keeps an expired value. Without compare-and-set, this keeps a sweep from removing a value that another process has just
 * renewed.
 */
const GRACE_MS = 60_000;

/**
 * An incomplete value may be a write in progress, because fs and fs-lite write in place. It is read again until it has not changed for this
 * long, or for half of the timeout. The caller then gets an error that says more than a timeout does.
 */
const UNCHANGED_FOR_MS = 1000;
const READ_AGAIN_EVERY_MS = 10;

/**
 * An unstorage driver as a backend of whole values, without compare-and-set.
 *
 * @param timeoutMs the timeout of one operation, in milliseconds. A sweep uses half of it.
 */
export function unstorageBackend(driver: Driver, timeoutMs: number): ValueBackend {
  /** The key that was swept last. The next sweep continues after it. */
  let position = '';

  return {
    compareAndSet: false,

    async get(key, { signal }) {
      let seen: string | undefined;
      let seenAt = 0;
      for (;;) {
        const stored = settled(await driver.getItem(key, {}));
        if (stored === null || stored === undefined) return null;
        const framed = await unframe(stored);
        if (framed) return { value: framed.value };
        if (typeof stored !== 'string') break;
        if (stored !== seen) [seen, seenAt] = [stored, performance.now()];
        else if (performance.now() - seenAt >= Math.min(UNCHANGED_FOR_MS, timeoutMs / 2)) break;
        await pause(READ_AGAIN_EVERY_MS, { signal });
        signal.throwIfAborted();
      }
      return {
        unreadable: createError(
          'session-unstorage',
          'refused',
          'The storage did not return the value that was stored: it is cut off or mixed, or another value is under its key. Does another ' +
            'program write to this storage, or did a process end during a write?',
        ),
      };
    },

    async set(key, value, { lifetimeMs, signal }) {
      // The unstorage drivers that can expire values use `ttl`, in seconds. The others ignore it.
      const options = lifetimeMs === 'never' ? {} : { ttl: Math.max(Math.ceil(lifetimeMs / 1000), 1) };
      const framed = await frame(value, lifetimeMs);
      signal.throwIfAborted();
      settled(await driver.setItem!(key, framed, options));
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
        const framed = await unframe(settled(await driver.getItem(key, {})));
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

/** Legacy sessions of Astro's own driver, which uses an unstorage driver as well. */
export function legacySessions(driver: Driver): LegacySessions {
  return {
    read: async (id, base) => settled(await driver.getItem(legacyKey(id, base), {})),
    async remove(id, base) {
      settled(await driver.removeItem!(legacyKey(id, base), {}));
    },
  };
}

/** Matches the keys of records and of tombstones, which end with a hash. A sweep does not read other keys in the same storage. */
const OUR_KEY = /[\w-]{43}(\.retired)?$/;

/** Throws an error that was returned: fs and fs-lite return the errors of reads and removals in place of the result. */
function settled<Result>(result: Result): Exclude<Result, Error> {
  if (result instanceof Error) throw result;
  return result as Exclude<Result, Error>;
}

/**
 * Puts a head in front of a value. It starts with a word, so that no client takes the value for JSON and parses it. The hash detects a
 * value that is cut off, and a mix of the start of an old value and the end of a new one, which a read during a write can return.
 */
async function frame(value: string, lifetimeMs: Lifetime): Promise<string> {
  const until =
    lifetimeMs === 'never' ? lifetimeMs : Math.min(Math.ceil(Date.now() + lifetimeMs), Number.MAX_SAFE_INTEGER);
  return `coatcheck ${until} ${await sha256Of(value)} ${value}`;
}

/** Resolves to the value and its expiry in epoch milliseconds; to undefined if it was not stored by `frame`, or is incomplete. */
async function unframe(stored: unknown): Promise<{ value: string; until: number } | undefined> {
  if (typeof stored !== 'string') return undefined;
  const [head, until, hash] = /^coatcheck (\d+|never) ([\w-]{43}) /.exec(stored) ?? [];
  if (head === undefined) return undefined;
  const value = stored.slice(head.length);
  return (await sha256Of(value)) === hash ? { value, until: until === 'never' ? Infinity : Number(until) } : undefined;
}
