import { createSessions, type SessionDriver, type SessionDriverConfig } from '@coatcheck/session-core';
import { LRUCache } from 'lru-cache';
import { expect, it } from 'vitest';

// The example driver of Astro's documentation, with our types in place of Astro's.

interface Config {
  max?: number;
}

function memoryDriver(config: Config = {}): SessionDriverConfig {
  return {
    entrypoint: new URL('./runtime.js', import.meta.url),
    config,
  };
}

function runtime(config: Config): SessionDriver {
  const cache = new LRUCache<string, {}>({ max: config.max! });
  return {
    setItem: async (key, value) => {
      cache.set(key, value as {});
    },
    getItem: async (key) => {
      return cache.get(key);
    },
    removeItem: async (key) => {
      cache.delete(key);
    },
  };
}

it('works with our types and our `Session`', async () => {
  expect(memoryDriver({ max: 500 }).config).toEqual({ max: 500 });
  const sessions = createSessions({ driver: runtime({ max: 500 }) });
  const first = sessions.open('');
  first.set('cart', new Map([['hat', 2]]));
  const cookie = (await first.commit())!.split(';')[0]!;
  await Promise.all(
    ['a', 'b', 'c'].map(async (key) => {
      const session = sessions.open(cookie);
      session.set(key, key);
      await session.commit();
    }),
  );
  const last = sessions.open(cookie);
  expect(Object.fromEntries(await last.entries())).toEqual({ cart: new Map([['hat', 2]]), a: 'a', b: 'b', c: 'c' });
  last.destroy();
  expect(await last.commit()).toContain('Max-Age=0');
  expect(await sessions.open(cookie).keys()).toEqual([]);
});
