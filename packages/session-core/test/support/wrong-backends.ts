import type { Lifetime, ValueBackend } from '@coatcheck/session-core/driver';
import type { Shelf } from './right-store.ts';

interface Stored {
  value: string;
  version: number;
  until: number;
}

/** The data of a backend of whole values with compare-and-set, which is used over a network. */
export interface ValueShelf {
  values: Map<string, Stored>;
  versions: number;
}

/** A backend that follows its contract. */
export function rightBackend(shelf: ValueShelf, { trip }: Pick<Shelf, 'trip'>): ValueBackend {
  const live = (key: string): Stored | undefined => {
    const stored = shelf.values.get(key);
    return stored && stored.until > Date.now() ? stored : undefined;
  };
  return {
    compareAndSet: true,
    async get(key, call) {
      await trip(call);
      return live(key) ?? null;
    },
    async set(key, value, { lifetimeMs, version, signal }) {
      await trip({ signal });
      if ((live(key)?.version ?? null) !== version) return false;
      store(shelf, key, value, lifetimeMs);
      return true;
    },
    async remove(key, call) {
      await trip(call);
      shelf.values.delete(key);
    },
  };
}

function store(shelf: ValueShelf, key: string, value: string, lifetimeMs: Lifetime): void {
  const until = lifetimeMs === 'never' ? Infinity : Date.now() + lifetimeMs;
  shelf.values.set(key, { value, version: (shelf.versions += 1), until });
}

interface WrongBackend {
  /** What is wrong with it; completes "a backend in which". */
  name: string;
  /** The start of the name of the rule that it breaks. */
  breaks: string;
  /** The methods that differ from those of a right backend with the same data. */
  wrong(shelf: ValueShelf, right: ValueBackend): Partial<ValueBackend>;
}

const DAY = 86_400_000;

/** Every value lives for another time. */
const changingLifetime =
  (edit: (ms: number) => number): WrongBackend['wrong'] =>
  (_shelf, right) => ({
    set: (key, value, call) => {
      const { lifetimeMs } = call;
      return right.set(key, value, { ...call, lifetimeMs: lifetimeMs === 'never' ? lifetimeMs : edit(lifetimeMs) });
    },
  });

/** Backends of whole values, each of which breaks one rule. */
export const wrongBackends: WrongBackend[] = [
  {
    name: '`set` ignores the version',
    breaks: '64 concurrent writers',
    wrong: (shelf, right) => ({
      async set(key, value, call) {
        await right.get(key, call);
        store(shelf, key, value, call.lifetimeMs);
        return true;
      },
    }),
  },
  {
    name: '`set` overwrites a value although there must be none',
    breaks: 'of concurrent changes that create a record',
    wrong: (shelf, right) => ({
      async set(key, value, call) {
        if (call.version !== null) return right.set(key, value, call);
        await right.get(key, call);
        store(shelf, key, value, call.lifetimeMs);
        return true;
      },
    }),
  },
  {
    name: '`set` compares and stores in two steps',
    breaks: '64 concurrent writers',
    wrong: (shelf, right) => ({
      async set(key, value, call) {
        if (((await right.get(key, call))?.version ?? null) !== call.version) return false;
        await right.get(key, call);
        store(shelf, key, value, call.lifetimeMs);
        return true;
      },
    }),
  },
  {
    name: '`set` counts an expired value, but `get` does not',
    breaks: 'an expired record counts as missing',
    wrong: (shelf) => ({
      async set(key, value, { lifetimeMs, version, signal }) {
        signal.throwIfAborted();
        if ((shelf.values.get(key)?.version ?? null) !== version) return false;
        store(shelf, key, value, lifetimeMs);
        return true;
      },
    }),
  },
  {
    name: '`get` answers from a cache',
    breaks: 'a change of some fields keeps the others',
    wrong: (_shelf, right) => {
      const cache = new Map<string, Awaited<ReturnType<ValueBackend['get']>>>();
      return {
        async get(key, call) {
          if (!cache.has(key)) cache.set(key, await right.get(key, call));
          return cache.get(key)!;
        },
      };
    },
  },
  {
    name: 'lifetimes are limited to a day',
    breaks: `a record lives exactly as long as requested: ${1.5 * DAY}`,
    wrong: changingLifetime((ms) => Math.min(ms, DAY)),
  },
  {
    name: 'lifetimes have 32 bits',
    breaks: `a record lives exactly as long as requested: ${60 * DAY}`,
    wrong: changingLifetime((ms) => ms | 0),
  },
  {
    name: 'lifetimes are rounded down to seconds',
    breaks: 'a record lives exactly as long as requested: 1999',
    wrong: changingLifetime((ms) => Math.floor(ms / 1000) * 1000),
  },
  {
    name: 'values are cut at 64 KiB',
    breaks: 'a value of 100,000',
    wrong: (_shelf, right) => ({ set: (key, value, call) => right.set(key, value.slice(0, 2 ** 16), call) }),
  },
  {
    name: 'keys are case-folded',
    breaks: 'keys that differ only in the case',
    wrong: (_shelf, right) => ({
      get: (key, call) => right.get(key.toLowerCase(), call),
      set: (key, value, call) => right.set(key.toLowerCase(), value, call),
    }),
  },
  {
    name: 'a failure is reported as a missing value',
    breaks: 'an unreachable backend',
    wrong: (_shelf, right) => ({ get: (key, call) => right.get(key, call).catch(() => null) }),
  },
];
