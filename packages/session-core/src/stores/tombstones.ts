/** Tombstones in the memory of this process: keys that reject writes for a while. */
export interface Tombstones {
  /** Whether the key has a tombstone now. */
  has(key: string): boolean;
  /** Adds a tombstone that ends `forMs` milliseconds from now. Never shortens an existing one. */
  add(key: string, forMs: number): void;
  /** Removes all tombstones. */
  clear(): void;
}

/** About 40 MB. No site has more sign-outs than this in one minute. */
const MAX_TOMBSTONES = 2 ** 18;

/**
 * Creates a set of tombstones in memory, for stores that keep them in this process. They end by the monotonic clock, so setting the system
 * clock forward does not end them early. At most 262,144 are kept; beyond that, the oldest are dropped.
 */
export function createTombstones(): Tombstones {
  const ends = new Map<string, number>();
  const endOf = (key: string): number => ends.get(key) ?? -Infinity;
  return {
    has: (key) => endOf(key) > performance.now(),
    add(key, forMs) {
      const now = performance.now();
      for (const [oldest, end] of ends) {
        if (end > now && ends.size < MAX_TOMBSTONES) break;
        ends.delete(oldest);
      }
      const end = Math.max(endOf(key), now + forMs);
      ends.delete(key);
      ends.set(key, end);
    },
    clear: () => ends.clear(),
  };
}
