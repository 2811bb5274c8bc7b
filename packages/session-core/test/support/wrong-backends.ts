import type { Lifetime, ValueBackend } from '@coatcheck/session-core/driver';
import type { Shelf } from './right-store.ts';

interface Stored {
  value: string;
  version: number;
  until: number;
}

/** Whole values with compare-and-set, in a backend that is asked over a network. */
export interface ValueShelf {
  values: Map<string, Stored>;
  versions: number;
}

/** A backend that keeps its contract. */
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
  name: string;
  /** How the rule begins that it breaks. */
  breaks: string;
  wrong(shelf: ValueShelf, right: ValueBackend): Partial<ValueBackend>;
}

const DAY = 86_400_000;

const living =
  (edit: (ms: number) => number): WrongBackend['wrong'] =>
  (_shelf, right) => ({
    set: (key, value, call) => {
      const { lifetimeMs } = call;
      return right.set(key, value, { ...call, lifetimeMs: lifetimeMs === 'never' ? lifetimeMs : edit(lifetimeMs) });
    },
  });

/** Backends of whole values that differ from a right one in one rule. */
export const wrongBackends: WrongBackend[] = [
  {
    name: '`set` ignores the version',
    breaks: '64 writers',
    wrong: (shelf, right) => ({
      async set(key, value, call) {
        await right.get(key, call);
        store(shelf, key, value, call.lifetimeMs);
        return true;
      },
    }),
  },
  {
    name: '`set` overwrites where there is to be no value',
    breaks: 'of many who make a new record',
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
    name: '`set` compares first, and stores afterwards',
    breaks: '64 writers',
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
    name: '`set` counts an expired value, and `get` does not',
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
    breaks: 'a change of some fields leaves the others alone',
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
    name: 'lifetimes end at a day',
    breaks: `a record lives for as long as it was told: ${1.5 * DAY}`,
    wrong: living((ms) => Math.min(ms, DAY)),
  },
  {
    name: 'lifetimes have 32 bits',
    breaks: `a record lives for as long as it was told: ${60 * DAY}`,
    wrong: living((ms) => ms | 0),
  },
  {
    name: 'lifetimes are whole seconds',
    breaks: 'a record lives for as long as it was told: 1999',
    wrong: living((ms) => Math.floor(ms / 1000) * 1000),
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
    name: 'a failure is no value',
    breaks: 'a backend that cannot be reached',
    wrong: (_shelf, right) => ({ get: (key, call) => right.get(key, call).catch(() => null) }),
  },
];
