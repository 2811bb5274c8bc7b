import { msSince, type Moment } from './clock.ts';

/**
 * For how long a removed session refuses writes.
 *
 * A record can be missing although a request has read it: because it was removed, or because the backend lost it. Only in the second
 * case may the request put it back, and it cannot tell the two apart by the record alone. The rule that keeps removed sessions removed
 * is: **a write that puts a session back reaches the backend before a tombstone that is younger than the read can have ended.**
 *
 * - A removal that the read did not see comes after the read was sent. Its tombstone lasts until `TOMBSTONE_MS` after that at the earliest.
 * - A write reaches the backend at most `timeout` after it was begun: nothing is sent after the deadline of an operation.
 * - So a write that puts back must begin less than `TOMBSTONE_MS - timeout` after the read was sent (`mayRestore`).
 *
 * Each writer subtracts its own `timeout`, so that drivers with different ones can share a backend.
 */
export const TOMBSTONE_MS = 60_000;

/** Whether a request that read a session at this moment may still put it back when the backend has lost it. */
export function mayRestore(readAt: Moment, timeoutMs: number): boolean {
  return msSince(readAt) < TOMBSTONE_MS - timeoutMs;
}

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
