import type { Fields, SessionStore } from '@coatcheck/session-core/driver';
import type { Redis } from 'ioredis';
import { expect, it } from 'vitest';
import { call, change, newKey } from './stores.ts';

const HOUR = 3_600_000;

/**
 * Tests for every kind of connection to Redis: each operation sends one command.
 *
 * @param commandsDuring resolves to the commands that `work` sent, in the spelling of `scripts`.
 */
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

  it.each(Object.entries(operations))('a %s sends one command', async (_name, operation) => {
    await operation();
    expect(await commandsDuring(operation)).toHaveLength(1);
  });

  it('scripts are sent once to a Redis that has lost them', async () => {
    const other = newKey();
    const patch = () => store.patch(other, change({ set }), call());
    await inspector.script('FLUSH');
    expect(await commandsDuring(patch)).toEqual([scripts.byHash, scripts.bySource]);
    expect(await commandsDuring(patch)).toEqual([scripts.byHash]);
    expect(await store.read(other, call())).toEqual(set);
  });
}
