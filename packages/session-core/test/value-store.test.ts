import { AsyncLocalStorage } from 'node:async_hooks';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { testStore } from '../src/testing/index.ts';
import type { Change } from '../src/contract/store.ts';
import { tombstoneKey, type ValueBackend } from '../src/stores/value-layout.ts';
import { valueStore } from '../src/stores/value-store.ts';

interface Shelf {
  backend: ValueBackend;
  /** How often the backend was asked. */
  operations: { get: number; set: number; remove: number };
  /** Whether the next `set` finds that somebody was faster. */
  conflicts: number;
  /** What the next operations fail with. */
  failure: Error | undefined;
  values: Map<string, { value: string; version: number; until: number }>;
}

/** A backend of whole values in memory, which answers late, in any order, and with the conflicts that a test asks for. */
function createShelf(compareAndSet: boolean): Shelf {
  const values: Shelf['values'] = new Map();
  let versions = 0;
  const shelf: Shelf = {
    operations: { get: 0, set: 0, remove: 0 },
    conflicts: 0,
    failure: undefined,
    values,
    backend: {
      compareAndSet,
      async get(key) {
        await answer('get');
        const stored = values.get(key);
        return stored && stored.until > Date.now() ? { value: stored.value, version: stored.version } : null;
      },
      async set(key, value, { lifetimeMs, version }) {
        // Decided when it is asked, so that what is under way keeps it.
        const meetsConflict = compareAndSet && shelf.conflicts-- > 0;
        await answer('set');
        const stored = values.get(key);
        const current = stored && stored.until > Date.now() ? stored.version : null;
        if (meetsConflict || (compareAndSet && current !== version)) return false;
        const until = lifetimeMs === 'never' ? Infinity : Date.now() + lifetimeMs;
        values.set(key, { value, version: ++versions, until });
        return true;
      },
      async remove(key) {
        await answer('remove');
        values.delete(key);
      },
    },
  };
  const answer = async (operation: keyof Shelf['operations']): Promise<void> => {
    shelf.operations[operation]++;
    for (let turns = Math.floor(Math.random() * 4); turns > 0; turns--) await new Promise(setImmediate);
    if (shelf.failure) throw shelf.failure;
  };
  return shelf;
}

const call = (signal = new AbortController().signal) => ({ signal });

const setting = (name: string, value = ':1'): Change => ({
  set: new Map([[name, value]]),
  unset: [],
  lifetimeMs: 60_000,
  defaultTtlMs: 60_000,
  now: Date.now(),
});

describe('with compare-and-set', () => {
  const { backend } = createShelf(true);
  describe('the conformance suite', () => {
    withFakeDate();
    testStore({ it, createStore: () => valueStore(backend), slackMs: 20, passTime });
  });

  it('writes of one key made at once cost one read and a few writes, not one each', async () => {
    const shelf = createShelf(true);
    const store = valueStore(shelf.backend);
    await Promise.all(Array.from({ length: 64 }, (_, index) => store.patch('key', setting(`field${index}`), call())));
    expect((await store.read('key', call()))?.size).toBe(64);
    expect(shelf.operations.set).toBe(1);
  });

  it('starts over on what is there now when another process was faster', async () => {
    const shelf = createShelf(true);
    const [one, other] = [valueStore(shelf.backend), valueStore(shelf.backend)];
    await one.patch('key', setting('theirs'), call());
    shelf.conflicts = 3;
    await Promise.all([one.patch('key', setting('ours'), call()), other.patch('key', setting('theirs', ':2'), call())]);
    expect(await one.read('key', call())).toEqual(
      new Map([
        ['theirs', ':2'],
        ['ours', ':1'],
      ]),
    );
  });

  it('a change whose caller gave up is not stored later, and does not hold up the others', async () => {
    const shelf = createShelf(true);
    const store = valueStore(shelf.backend);
    const given = new AbortController();
    const first = store.patch('key', setting('first'), call());
    const gaveUp = store.patch('key', setting('given-up'), call(given.signal)).catch(nameOf);
    const last = store.patch('key', setting('last'), call());
    given.abort();
    await Promise.all([first, last]);
    expect(await gaveUp).toBe('AbortError');
    expect([...(await store.read('key', call()))!.keys()]).toEqual(['first', 'last']);
  });

  it('a change that meets conflict after conflict stops when its caller gives up', async () => {
    const shelf = createShelf(true);
    const store = valueStore(shelf.backend);
    shelf.conflicts = Infinity;
    const given = new AbortController();
    const gaveUp = store.patch('key', setting('never'), call(given.signal)).catch(nameOf);
    await expect.poll(() => shelf.operations.set).toBeGreaterThan(2);
    given.abort();
    expect(await gaveUp).toBe('AbortError');
    shelf.conflicts = 0;
    expect(await store.patch('key', setting('after'), call())).toBe('applied');
    expect([...(await store.read('key', call()))!.keys()]).toEqual(['after']);
  });

  it('a refused change writes nothing', async () => {
    const shelf = createShelf(true);
    const store = valueStore(shelf.backend);
    expect(await store.patch('key', { ...setting('a'), mustExist: true }, call())).toBe('missing');
    expect(shelf.operations).toEqual({ get: 1, set: 0, remove: 0 });
  });
});

describe('without compare-and-set', () => {
  const { backend } = createShelf(false);
  describe('the conformance suite', () => {
    withFakeDate();
    testStore({ it, createStore: () => valueStore(backend), slackMs: 20, passTime });
  });

  it('says that it is not atomic', () => {
    expect(valueStore(createShelf(false).backend).atomic).toBe(false);
  });

  it('a write of another process that comes after the removal is taken back', async () => {
    const shelf = createShelf(false);
    const [one, other] = [valueStore(shelf.backend), valueStore(shelf.backend)];
    await one.patch('key', setting('user'), call());
    const late = other.patch('key', setting('late'), call());
    await one.destroy('key', 60_000, call());
    await late;
    expect(await other.patch('key', setting('later'), call())).toBe('destroyed');
    expect(await one.read('key', call())).toBeNull();
  });

  it('the tombstone lives as long as the record could have come back', async () => {
    const shelf = createShelf(false);
    const store = valueStore(shelf.backend);
    await store.patch('key', { ...setting('user'), lifetimeMs: 86_400_000, defaultTtlMs: 86_400_000 }, call());
    await store.destroy('key', 60_000, call());
    const tombstone = shelf.values.get(tombstoneKey('key'));
    expect(tombstone!.until - Date.now()).toBeGreaterThan(86_000_000);
  });

  it('the tombstone of a record without an end has one, after 30 days', async () => {
    const shelf = createShelf(false);
    const store = valueStore(shelf.backend);
    const { defaultTtlMs: _, ...endless } = setting('user');
    await store.patch('key', { ...endless, lifetimeMs: 'never' }, call());
    expect([...shelf.values.values()].map(({ until }) => until)).toEqual([Infinity]);
    await store.destroy('key', 60_000, call());
    const days = (shelf.values.get(tombstoneKey('key'))!.until - Date.now()) / 86_400_000;
    expect(days).toBeGreaterThan(29);
    expect(days).toBeLessThanOrEqual(30);
  });
});

describe.each([true, false])('a value that is corrupt (compare-and-set: %s)', (compareAndSet) => {
  it.each([
    ['a moment that is none', '1 - \n'],
    ['a field without a name', '1   0 2\n:1'],
    ['a length below zero', '1   1 2 -1 1\na:1'],
    ['lengths that are too short', '1   1 1\na:1'],
  ])('%s is an error, and no miss', async (_name, value) => {
    const shelf = createShelf(compareAndSet);
    shelf.values.set('key', { value, version: 1, until: Infinity });
    const store = valueStore(shelf.backend);
    await expect(store.read('key', call())).rejects.toThrow(
      'The stored record is corrupt, or a newer version wrote it.',
    );
    await expect(store.patch('key', setting('user'), call())).rejects.toThrow(
      'The stored record is corrupt, or a newer version wrote it.',
    );
    expect(shelf.values.get('key')!.value).toBe(value);
  });

  it.each([
    ['is no record', { value: 'scribble', version: 1 }],
    ['the backend cannot read', { unreadable: new Error('cut off'), version: 1 }],
    ['is corrupt so much that it has no version', { unreadable: new Error('cut off') }],
  ])('that %s can be removed, and stays removed', async (_name, stored) => {
    const shelf = createShelf(compareAndSet);
    shelf.values.set('key', { value: 'scribble', version: 1, until: Infinity });
    const store = valueStore({
      ...shelf.backend,
      get: async (key, options) => {
        const found = await shelf.backend.get(key, options);
        return found?.value === 'scribble' ? stored : found;
      },
    });
    const racing = [store.destroy('key', 60_000, call()), store.patch('key', setting('late'), call())];
    expect(await racing[0]).toBeNull();
    await racing[1]!.catch(() => undefined);
    expect(await store.destroy('key', 60_000, call())).toBe('destroyed');
    expect(await store.read('key', call())).toBeNull();
    expect(await store.patch('key', setting('user'), call())).toBe('destroyed');
    expect([...shelf.values.values()].map(({ value }) => value).join()).not.toContain('scribble');
  });

  it.each(['retired ', 'retired x', 'retired NaN'])('%j is an error, and no missing tombstone', async (value) => {
    const shelf = createShelf(compareAndSet);
    shelf.values.set(compareAndSet ? 'key' : tombstoneKey('key'), { value, version: 1, until: Infinity });
    const store = valueStore(shelf.backend);
    await expect(store.patch('key', setting('user'), call())).rejects.toThrow('corrupt');
    await store.destroy('key', 60_000, call());
    expect(await store.patch('key', setting('user'), call())).toBe('destroyed');
  });
});

it.each([true, false])(
  'a backend that fails is an error for everyone who waited, and works again afterwards (compare-and-set: %s)',
  async (compareAndSet) => {
    const shelf = createShelf(compareAndSet);
    const store = valueStore(shelf.backend);
    await store.patch('key', setting('a'), call());
    shelf.failure = new Error('the disk is full');
    const results = await Promise.allSettled([
      store.patch('key', setting('b'), call()),
      store.destroy('key', 1, call()),
      store.read('key', call()),
    ]);
    expect(results.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected']);
    shelf.failure = undefined;
    expect(await store.read('key', call())).toEqual(new Map([['a', ':1']]));
  },
);

describe('requests that share nothing, as those of a Cloudflare Worker', () => {
  it('each look at their own signal only, and do their own work', async () => {
    const request = new AsyncLocalStorage<number>();
    const shelf = createShelf(false);
    const mine = (which: number, signal: AbortSignal): AbortSignal =>
      new Proxy(signal, {
        get(target, property) {
          if (request.getStore() !== which) throw new Error('Cannot perform I/O on behalf of a different request.');
          const value: unknown = Reflect.get(target, property);
          return typeof value === 'function' ? value.bind(target) : value;
        },
      });
    const store = valueStore({
      ...shelf.backend,
      async get(key, { signal }) {
        signal.throwIfAborted();
        return shelf.backend.get(key, call());
      },
      async set(key, value, options) {
        options.signal.throwIfAborted();
        return shelf.backend.set(key, value, { ...options, signal: call().signal });
      },
    });
    const write = (which: number): Promise<unknown> =>
      request.run(which, () => {
        const signal = mine(which, new AbortController().signal);
        return store.patch('key', setting(`field${which}`), { signal });
      });
    const results = await Promise.all(Array.from({ length: 8 }, (_, which) => write(which)));
    await new Promise(setImmediate);
    results.push(...(await Promise.all(Array.from({ length: 8 }, (_, which) => write(which + 8)))));
    expect(new Set(results)).toEqual(new Set(['applied']));
    expect((await store.read('key', call()))?.size).toBe(16);
  });

  it('that come to nothing hold nobody up for longer than one deadline', async () => {
    const shelf = createShelf(false);
    let silent = true;
    const store = valueStore({
      ...shelf.backend,
      get: (key, options) => (silent ? new Promise(() => undefined) : shelf.backend.get(key, options)),
    });
    // Cancelled: nothing that they wait for comes, and their deadline does not either.
    for (let index = 0; index < 3; index++) void store.patch('key', setting(`cancelled${index}`), call());
    await new Promise(setImmediate);
    void store.patch('key', setting('cancelled later'), call());
    silent = false;
    const tooLate = store.patch('key', setting('too late'), call(AbortSignal.timeout(600))).catch(nameOf);
    await vi.waitFor(async () => {
      expect(await store.patch('key', setting('after'), call(AbortSignal.timeout(500)))).toBe('applied');
    }, 60_000);
    expect(await tooLate).toBe('TimeoutError');
    expect([...(await store.read('key', call()))!.keys()]).toEqual(['after']);
  });
});

it('a value that is no record is an error, never a miss', async () => {
  const shelf = createShelf(true);
  shelf.values.set('key', { value: '{"user":"ada"}', version: 1, until: Infinity });
  await expect(valueStore(shelf.backend).read('key', call())).rejects.toThrow(
    'The stored record is corrupt, or a newer version wrote it.',
  );
});

/** Time passes when the suite says so, and no sooner on a busy machine. */
function withFakeDate(): void {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['Date'] }));
  afterEach(() => void vi.useRealTimers());
}

async function passTime(ms: number): Promise<void> {
  vi.setSystemTime(Date.now() + ms);
}

const nameOf = (error: Error): string => error.name;
