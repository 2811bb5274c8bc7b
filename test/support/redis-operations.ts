import type { Fields, SessionStore } from '@coatcheck/session-core/driver';
import type { Redis } from 'ioredis';
import { expect, it } from 'vitest';
import { call, change, newKey } from './stores.ts';

const HOUR = 3_600_000;

/** What every way to Redis promises: one command an operation. `commandsDuring` tells which ones some work sent, spelled like `scripts`. */
export function testOperations(
  store: SessionStore,
  inspector: Redis,
  commandsDuring: (work: () => Promise<unknown>) => Promise<string[]>,
  scripts: { byHash: string; bySource: string },
): void {
  const key = newKey();
  const set: Fields = new Map([['a', ':1']]);
  const operations = {
    patch: () => store.patch(key, change({ set, unset: ['b'], expect: new Map([['c', null]]), idleMs: HOUR }), call()),
    read: () => store.read(key, call()),
    'read that extends': () => store.read(key, { ...call(), extendIdleMs: HOUR }),
    destroy: () => store.destroy(key, HOUR, call()),
  };

  it.each(Object.entries(operations))('a %s', async (_name, operation) => {
    await operation();
    expect(await commandsDuring(operation)).toHaveLength(1);
  });

  it('a Redis that has lost the scripts is given them once', async () => {
    const other = newKey();
    const patch = () => store.patch(other, change({ set }), call());
    await inspector.script('FLUSH');
    expect(await commandsDuring(patch)).toEqual([scripts.byHash, scripts.bySource]);
    expect(await commandsDuring(patch)).toEqual([scripts.byHash]);
    expect(await store.read(other, call())).toEqual(set);
  });
}
