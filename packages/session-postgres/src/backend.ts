import type { ValueBackend } from '@coatcheck/session-core/driver';

interface Stored {
  value: string;
  version: number;
  until: number;
}

// TODO: replace the Map with the real backend. It is here so that all tests pass before you begin.
const backends = new Map<string, Map<string, Stored>>();
let versions = 0;

/**
 * A backend of whole values. If the real one can change single fields in one round trip, write `read`, `patch` and `destroy` of `SessionStore`
 * instead, as `redisStore` in session-core does, and return that store from `open` in `runtime.ts`.
 */
export function openBackend(address: string): ValueBackend {
  const values = backends.get(address) ?? new Map<string, Stored>();
  backends.set(address, values);

  // A value that has expired does not exist, for `set` as for `get`.
  const find = (key: string): Stored | undefined => {
    const stored = values.get(key);
    return stored && stored.until > Date.now() ? stored : undefined;
  };

  // Each function hands `call.signal` to the client, or calls `call.signal.throwIfAborted()` before it sends something. It rejects only when
  // the backend failed, and never answers null for a failure. When the backend cannot be reached and nothing was sent, the error is
  // `createError('session-postgres', 'unavailable', ...)`.
  return {
    // False if `set` cannot check the version in the same step. Then say in the README what can be lost.
    compareAndSet: true,

    async get(key, call) {
      call.signal.throwIfAborted();
      return find(key) ?? null;
    },

    async set(key, value, { lifetimeMs, version, signal }) {
      signal.throwIfAborted();
      if ((find(key)?.version ?? null) !== version) return false;
      values.set(key, {
        value,
        version: (versions += 1),
        until: lifetimeMs === 'never' ? Infinity : Date.now() + lifetimeMs,
      });
      return true;
    },

    async remove(key, call) {
      call.signal.throwIfAborted();
      values.delete(key);
    },
  };
}
