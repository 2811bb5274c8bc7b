import { afterEach, describe, expect, it, vi } from 'vitest';
import { engineFor, engineOver } from '../src/engine/engine.ts';
import { createShelf, rightStore } from './support/right-store.ts';

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
