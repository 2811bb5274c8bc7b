/** Keys that refuse writes for a while, in the memory of this process. */
export interface Tombstones {
  has(key: string): boolean;
  /** Never shortens what there is. */
  add(key: string, forMs: number): void;
  clear(): void;
}

/** Some 40 MB. More sign-outs than that in one minute are no site's users. */
const MOST = 2 ** 18;

/**
 * Tombstones in memory. They end by the monotonic clock: setting the machine's clock forward ends none early. At most 262,144 are kept, and
 * the oldest go first.
 */
export function createTombstones(): Tombstones {
  const ends = new Map<string, number>();
  const endOf = (key: string): number => ends.get(key) ?? -Infinity;
  return {
    has: (key) => endOf(key) > performance.now(),
    add(key, forMs) {
      const now = performance.now();
      for (const [oldest, end] of ends) {
        if (end > now && ends.size < MOST) break;
        ends.delete(oldest);
      }
      const end = Math.max(endOf(key), now + forMs);
      ends.delete(key);
      ends.set(key, end);
    },
    clear: () => ends.clear(),
  };
}
