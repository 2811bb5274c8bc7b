import type { SessionDriver } from 'astro';
import type { Config } from './config';
import { LRUCache } from 'lru-cache';

export default function (config: Config): SessionDriver {
  const cache = new LRUCache<string, any>({ max: config.max! });
  return {
    setItem: async (key, value) => {
      cache.set(key, value);
    },
    getItem: async (key) => {
      return cache.get(key);
    },
    removeItem: async (key) => {
      cache.delete(key);
    },
  };
}
