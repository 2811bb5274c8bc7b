import { AsyncLocalStorage } from 'node:async_hooks';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { testStore } from '../src/testing/index.ts';
import type { Change } from '../src/contract/store.ts';
import { tombstoneKey } from '../src/stores/two-values.ts';
import type { ValueBackend } from '../src/stores/value-layout.ts';
import { valueStore } from '../src/stores/value-store.ts';

interface FakeBackend {
  backend: ValueBackend;
  /** The number of calls of each method. */
  operations: { get: number; set: number; remove: number };
  /** How many of the next calls of `set` meet a conflict. */
  conflicts: number;
  /** The error with which operations fail; undefined when they succeed. */
  failure: Error | undefined;
  values: Map<string, { value: string; version: number; until: number }>;
}

/** Creates a backend of whole values in memory. It answers late and in random order, and with conflicts and failures that a test sets. */
function createFakeBackend(compareAndSet: boolean): FakeBackend {
  const values: FakeBackend['values'] = new Map();
  let versions = 0;
  const fake: FakeBackend = {
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
        // Decided before the delay, so that a call keeps its result when a test changes `conflicts` in the meantime.
        const meetsConflict = compareAndSet && fake.conflicts-- > 0;
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
  const answer = async (operation: keyof FakeBackend['operations']): Promise<void> => {
    fake.operations[operation]++;
    for (let turns = Math.floor(Math.random() * 4); turns > 0; turns--) await new Promise(setImmediate);
    if (fake.failure) throw fake.failure;
  };
  return fake;
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
  const { backend } = createFakeBackend(true);
  describe('the conformance suite', () => {
    withFakeDate();
    testStore({ it, createStore: () => valueStore(backend), slackMs: 20, passTime });
  });

  it('concurrent writes of one key are combined into one write', async () => {
    const fake = createFakeBackend(true);
    const store = valueStore(fake.backend);
    await Promise.all(Array.from({ length: 64 }, (_, index) => store.patch('key', setting(`field${index}`), call())));
    expect((await store.read('key', call()))?.size).toBe(64);
    expect(fake.operations.set).toBe(1);
  });

  it('retries with the current record when another process was faster', async () => {
    const fake = createFakeBackend(true);
    const [one, other] = [valueStore(fake.backend), valueStore(fake.backend)];
    await one.patch('key', setting('theirs'), call());
    fake.conflicts = 3;
    await Promise.all([one.patch('key', setting('ours'), call()), other.patch('key', setting('theirs', ':2'), call())]);
    expect(await one.read('key', call())).toEqual(
      new Map([
        ['theirs', ':2'],
        ['ours', ':1'],
      ]),
    );
  });

  it('a change whose signal has aborted is not stored later, and does not delay others', async () => {
    const fake = createFakeBackend(true);
    const store = valueStore(fake.backend);
    const controller = new AbortController();
    const first = store.patch('key', setting('first'), call());
    const aborted = store.patch('key', setting('given-up'), call(controller.signal)).catch(nameOf);
    const last = store.patch('key', setting('last'), call());
    controller.abort();
    await Promise.all([first, last]);
    expect(await aborted).toBe('AbortError');
    expect([...(await store.read('key', call()))!.keys()]).toEqual(['first', 'last']);
  });

  it('a change that keeps meeting conflicts stops when its signal aborts', async () => {
    const fake = createFakeBackend(true);
    const store = valueStore(fake.backend);
    fake.conflicts = Infinity;
    const controller = new AbortController();
    const aborted = store.patch('key', setting('never'), call(controller.signal)).catch(nameOf);
    await expect.poll(() => fake.operations.set).toBeGreaterThan(2);
    controller.abort();
    expect(await aborted).toBe('AbortError');
    fake.conflicts = 0;
    expect(await store.patch('key', setting('after'), call())).toBe('applied');
    expect([...(await store.read('key', call()))!.keys()]).toEqual(['after']);
  });

  it('a rejected change writes nothing', async () => {
    const fake = createFakeBackend(true);
    const store = valueStore(fake.backend);
    expect(await store.patch('key', { ...setting('a'), mustExist: true }, call())).toBe('missing');
    expect(fake.operations).toEqual({ get: 1, set: 0, remove: 0 });
  });
});

describe('without compare-and-set', () => {
  const { backend } = createFakeBackend(false);
  describe('the conformance suite', () => {
    withFakeDate();
    testStore({ it, createStore: () => valueStore(backend), slackMs: 20, passTime });
  });

  it('reports that it is not atomic', () => {
    expect(valueStore(createFakeBackend(false).backend).atomic).toBe(false);
  });

  it('a write of another process after the removal is undone', async () => {
    const fake = createFakeBackend(false);
    const [one, other] = [valueStore(fake.backend), valueStore(fake.backend)];
    await one.patch('key', setting('user'), call());
    const late = other.patch('key', setting('late'), call());
    await one.destroy('key', 60_000, call());
    await late;
    expect(await other.patch('key', setting('later'), call())).toBe('destroyed');
    expect(await one.read('key', call())).toBeNull();
  });

  it('the tombstone lasts as long as the record could come back', async () => {
    const fake = createFakeBackend(false);
    const store = valueStore(fake.backend);
    const before = Date.now();
    await store.patch('key', { ...setting('user'), lifetimeMs: 86_400_000, defaultTtlMs: 86_400_000 }, call());
    await store.destroy('key', 60_000, call());
    const tombstone = fake.values.get(tombstoneKey('key'));
    expect(tombstone!.until).toBeGreaterThanOrEqual(before + 86_400_000);
  });

  it('the tombstone of a record that never expires ends after 30 days', async () => {
    const fake = createFakeBackend(false);
    const store = valueStore(fake.backend);
    const { defaultTtlMs: _, ...endless } = setting('user');
    await store.patch('key', { ...endless, lifetimeMs: 'never' }, call());
    expect([...fake.values.values()].map(({ until }) => until)).toEqual([Infinity]);
    await store.destroy('key', 60_000, call());
    const days = (fake.values.get(tombstoneKey('key'))!.until - Date.now()) / 86_400_000;
    expect(days).toBeGreaterThan(29);
    expect(days).toBeLessThanOrEqual(30);
  });
});

describe.each([true, false])('a corrupt value (compare-and-set: %s)', (compareAndSet) => {
  it.each([
    ['with an invalid timestamp', '1 - \n'],
    ['with a field without a name', '1   0 2\n:1'],
    ['with a negative length', '1   1 2 -1 1\na:1'],
    ['with lengths that are too short', '1   1 1\na:1'],
  ])('%s is an error, and does not count as missing', async (_name, value) => {
    const fake = createFakeBackend(compareAndSet);
    fake.values.set('key', { value, version: 1, until: Infinity });
    const store = valueStore(fake.backend);
    await expect(store.read('key', call())).rejects.toThrow(
      'The stored record is corrupt, or a newer version wrote it.',
    );
    await expect(store.patch('key', setting('user'), call())).rejects.toThrow(
      'The stored record is corrupt, or a newer version wrote it.',
    );
    expect(fake.values.get('key')!.value).toBe(value);
  });

  it.each([
    ['is not a record', { value: 'scribble', version: 1 }],
    ['the backend cannot read', { unreadable: new Error('cut off'), version: 1 }],
    ['is too corrupt to have a version', { unreadable: new Error('cut off') }],
  ])('that %s can be destroyed, and stays destroyed', async (_name, stored) => {
    const fake = createFakeBackend(compareAndSet);
    fake.values.set('key', { value: 'scribble', version: 1, until: Infinity });
    const store = valueStore({
      ...fake.backend,
      get: async (key, options) => {
        const found = await fake.backend.get(key, options);
        return found?.value === 'scribble' ? stored : found;
      },
    });
    const racing = [store.destroy('key', 60_000, call()), store.patch('key', setting('late'), call())];
    expect(await racing[0]).toBeNull();
    await racing[1]!.catch(() => undefined);
    expect(await store.destroy('key', 60_000, call())).toBe('destroyed');
    expect(await store.read('key', call())).toBeNull();
    expect(await store.patch('key', setting('user'), call())).toBe('destroyed');
    expect([...fake.values.values()].map(({ value }) => value).join()).not.toContain('scribble');
  });

  it.each(['retired ', 'retired x', 'retired NaN'])(
    '%j is an error, and does not count as a missing tombstone',
    async (value) => {
      const fake = createFakeBackend(compareAndSet);
      fake.values.set(compareAndSet ? 'key' : tombstoneKey('key'), { value, version: 1, until: Infinity });
      const store = valueStore(fake.backend);
      await expect(store.patch('key', setting('user'), call())).rejects.toThrow('corrupt');
      await store.destroy('key', 60_000, call());
      expect(await store.patch('key', setting('user'), call())).toBe('destroyed');
    },
  );
});

it.each([true, false])(
  'a failure of the backend rejects all waiting operations, and later ones work again (compare-and-set: %s)',
  async (compareAndSet) => {
    const fake = createFakeBackend(compareAndSet);
    const store = valueStore(fake.backend);
    await store.patch('key', setting('a'), call());
    fake.failure = new Error('the disk is full');
    const results = await Promise.allSettled([
      store.patch('key', setting('b'), call()),
      store.destroy('key', 1, call()),
      store.read('key', call()),
    ]);
    expect(results.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected']);
    fake.failure = undefined;
    expect(await store.read('key', call())).toEqual(new Map([['a', ':1']]));
  },
);

describe('requests that must not share objects, as in a Cloudflare Worker', () => {
  it('each use only their own signal, and do their own work', async () => {
    const request = new AsyncLocalStorage<number>();
    const fake = createFakeBackend(false);
    const mine = (which: number, signal: AbortSignal): AbortSignal =>
      new Proxy(signal, {
        get(target, property) {
          if (request.getStore() !== which) throw new Error('Cannot perform I/O on behalf of a different request.');
          const value: unknown = Reflect.get(target, property);
          return typeof value === 'function' ? value.bind(target) : value;
        },
      });
    const store = valueStore({
      ...fake.backend,
      async get(key, { signal }) {
        signal.throwIfAborted();
        return fake.backend.get(key, call());
      },
      async set(key, value, options) {
        options.signal.throwIfAborted();
        return fake.backend.set(key, value, { ...options, signal: call().signal });
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

  it('that were canceled block others for at most one deadline', async () => {
    const fake = createFakeBackend(false);
    let silent = true;
    const store = valueStore({
      ...fake.backend,
      get: (key, options) => (silent ? new Promise(() => undefined) : fake.backend.get(key, options)),
    });
    // Operations of canceled requests: they never settle, and their signals never abort.
    for (let index = 0; index < 3; index++) void store.patch('key', setting(`canceled${index}`), call());
    await new Promise(setImmediate);
    void store.patch('key', setting('canceled later'), call());
    silent = false;
    const tooLate = store.patch('key', setting('too late'), call(AbortSignal.timeout(600))).catch(nameOf);
    await vi.waitFor(async () => {
      expect(await store.patch('key', setting('after'), call(AbortSignal.timeout(500)))).toBe('applied');
    }, 60_000);
    expect(await tooLate).toBe('TimeoutError');
    expect([...(await store.read('key', call()))!.keys()]).toEqual(['after']);
  });
});

it('a value that is not a record is an error, and does not count as missing', async () => {
  const fake = createFakeBackend(true);
  fake.values.set('key', { value: '{"user":"ada"}', version: 1, until: Infinity });
  await expect(valueStore(fake.backend).read('key', call())).rejects.toThrow(
    'The stored record is corrupt, or a newer version wrote it.',
  );
});

/** Uses a fake clock, so that time passes only when the suite moves it, also on a busy machine. */
function withFakeDate(): void {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['Date'] }));
  afterEach(() => void vi.useRealTimers());
}

async function passTime(ms: number): Promise<void> {
  vi.setSystemTime(Date.now() + ms);
}

const nameOf = (error: Error): string => error.name;
