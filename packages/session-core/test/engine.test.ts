import { afterEach, describe, expect, it, vi } from 'vitest';
import { engineFor, engineOver } from '../src/engine/engine.ts';
import { createShelf, rightStore } from './support/right-store.ts';

afterEach(() => {
  vi.useRealTimers();
});

const ID = 'a'.repeat(22);
const set = new Map([['user', ':1']]);

let engines = 0;

function createEngine() {
  const shelf = createShelf();
  const store = rightStore(shelf);
  const calls: string[] = [];
  let opened = 0;
  const engine = engineFor(
    {
      name: `session-engine-${++engines}`,
      options: {},
      open: () => {
        opened++;
        return {
          ...store,
          read: (key, call) => (calls.push(`read ${key}`), store.read(key, call)),
          patch: (key, change, call) => (calls.push(`patch ${key}`), store.patch(key, change, call)),
          destroy: (key, ms, call) => (calls.push(`destroy ${key}`), store.destroy(key, ms, call)),
        };
      },
    },
    {},
  );
  return { engine, shelf, calls, opened: () => opened };
}

/** An engine whose stores open when the test calls their functions in `openings`. `closed` lists the stores that were closed, by number. */
function createSlowEngine(options: { timeout?: number }) {
  const openings: (() => void)[] = [];
  const closed: number[] = [];
  const engine = engineFor(
    {
      name: `session-engine-${++engines}`,
      options: {},
      async open() {
        const number = openings.length;
        await new Promise<void>((resolve) => openings.push(resolve));
        return { ...rightStore(createShelf()), close: async () => void closed.push(number) };
      },
    },
    options,
  );
  return { engine, openings, closed };
}

describe('an engine', () => {
  it('opens its backend once, at the first operation', async () => {
    const { engine, opened } = createEngine();
    expect(opened()).toBe(0);
    await Promise.all([engine.read(ID), engine.patch(ID, { set }), engine.read('b'.repeat(22))]);
    expect(opened()).toBe(1);
  });

  it('opens its backend again after close()', async () => {
    const { engine, opened } = createEngine();
    await engine.read(ID);
    await engine.close();
    await engine.read(ID);
    expect(opened()).toBe(2);
  });

  it('keeps the store that opened first, if opening takes longer than an operation may', async () => {
    vi.useFakeTimers();
    const { engine, openings, closed } = createSlowEngine({ timeout: 1000 });
    const first = engine.patch(ID, { set });
    void first.catch(() => undefined);
    await vi.advanceTimersByTimeAsync(600);
    const second = engine.patch(ID, { set });
    await vi.advanceTimersByTimeAsync(600);
    await expect(first).rejects.toMatchObject({ code: 'timeout' });
    // The circuit breaker opens another store, to find out whether the backend is back.
    expect(openings).toHaveLength(2);
    openings[0]!();
    expect(await second).toBe('applied');
    openings[1]!();
    await vi.advanceTimersByTimeAsync(0);
    expect(closed).toEqual([1]);
    expect(new Map(await engine.read(ID))).toEqual(set);
    expect(openings).toHaveLength(2);
  });

  it('closes a store that is being opened when the backend is closed, and opens another one', async () => {
    const { engine, openings, closed } = createSlowEngine({});
    const reading = engine.read(ID);
    await expect.poll(() => openings.length).toBe(1);
    const closing = engine.close();
    openings[0]!();
    await closing;
    await reading;
    expect(closed).toEqual([0]);
    const again = engine.patch(ID, { set });
    await expect.poll(() => openings.length).toBe(2);
    openings[1]!();
    expect(await again).toBe('applied');
    expect(closed).toEqual([0]);
  });

  it('says that nothing was sent if the driver cannot be loaded, and loads it again', async () => {
    let isMissing = true;
    const engine = engineFor(
      {
        name: `session-engine-${++engines}`,
        options: {},
        open() {
          if (isMissing) throw Object.assign(new Error('EMFILE: too many open files'), { code: 'EMFILE' });
          return rightStore(createShelf());
        },
      },
      {},
    );
    await expect(engine.patch(ID, { set })).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining('could not be loaded, so nothing was sent'),
      cause: { code: 'EMFILE' },
    });
    isMissing = false;
    await expect.poll(() => engine.patch(ID, { set }).catch(() => 'failed')).toBe('applied');
  });

  it('passes the store a key that does not contain the id', async () => {
    const { engine, calls } = createEngine();
    await engine.patch(ID, { set });
    expect(calls).toEqual([expect.stringMatching(/^patch session:[\w-]{43}$/)]);
    expect(calls.join()).not.toContain(ID.slice(0, 6));
  });

  it('shares one operation between reads in the same tick, but not with later reads', async () => {
    const { engine, calls } = createEngine();
    const first = [engine.read(ID), engine.read(ID)];
    await Promise.resolve();
    const later = engine.read(ID);
    await Promise.all([...first, later]);
    expect(calls).toHaveLength(2);
  });

  it.each(['', 'short', 'a'.repeat(129), 'with spaces in between', null, 7])(
    'sends nothing to the backend for an invalid id: %j',
    async (id) => {
      const { engine, calls } = createEngine();
      expect(await engine.read(id as string)).toBeNull();
      expect(await engine.destroy(id as string)).toBeNull();
      await expect(engine.patch(id as string, { set })).rejects.toMatchObject({ code: 'invalid-id' });
      expect(calls).toEqual([]);
    },
  );

  it('destroy() resolves to the last contents of the session, and then to `destroyed`', async () => {
    const { engine } = createEngine();
    await engine.patch(ID, { set });
    expect(new Map((await engine.destroy(ID)) as Iterable<[string, string]>)).toEqual(set);
    expect(await engine.destroy(ID)).toBe('destroyed');
    expect(await engine.patch(ID, { set })).toBe('destroyed');
  });

  it('sweep() resolves to 0 when the backend expires records by itself', async () => {
    expect(await createEngine().engine.sweep(10)).toBe(0);
  });

  it('fails immediately while its backend is down, and works again afterwards', async () => {
    const { engine, shelf, calls } = createEngine();
    await engine.patch(ID, { set });
    shelf.isDown = true;
    await expect(engine.read(ID)).rejects.toMatchObject({ code: 'unavailable' });
    const asked = calls.length;
    await expect(engine.read(ID)).rejects.toMatchObject({ code: 'unavailable' });
    expect(calls).toHaveLength(asked);
    shelf.isDown = false;
    await expect
      .poll(() =>
        engine.read(ID).then(
          (session) => session?.get('user'),
          () => 'down',
        ),
      )
      .toBe(':1');
  });
});

describe('in a runtime without `node:crypto`', () => {
  afterEach(() => void vi.restoreAllMocks());

  /** An engine of modules that were loaded in such a runtime, with this implementation of `crypto.subtle.digest`. */
  async function engineWith(digest: () => Promise<ArrayBuffer>) {
    vi.spyOn(process, 'getBuiltinModule').mockReturnValue(undefined);
    vi.spyOn(crypto.subtle, 'digest').mockImplementation(digest);
    vi.resetModules();
    const elsewhere = await import('../src/engine/engine.ts');
    const name = `session-engine-${++engines}`;
    const open = () => rightStore(createShelf());
    return elsewhere.engineFor({ name, options: {}, open }, { timeout: 100 });
  }

  it('hashing the id is part of an operation, and ends at its deadline', async () => {
    const engine = await engineWith(() => new Promise(() => {}));
    await expect(engine.read(ID)).rejects.toMatchObject({ code: 'timeout', operation: 'read' });
  });

  it('an error of the hash is an error of the driver', async () => {
    const engine = await engineWith(() => Promise.reject(new Error('Not supported')));
    await expect(engine.patch(ID, { set })).rejects.toMatchObject({ name: 'SessionDriverError', operation: 'patch' });
  });
});

describe('an engine on a plain driver', () => {
  it('uses session ids as keys, and accepts only UUIDs', async () => {
    const shelf = createShelf();
    const engine = engineOver('session-plain', async () => rightStore(shelf));
    const id = crypto.randomUUID();
    await engine.patch(id, { set });
    expect([...shelf.slots.keys()]).toEqual([id]);
    await expect(engine.patch(ID, { set })).rejects.toMatchObject({
      code: 'invalid-id',
      message: expect.stringContaining('a UUID of version 4'),
    });
  });
});
