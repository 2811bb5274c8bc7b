import { TOMBSTONE_MS } from '../contract/tombstone.ts';

import { type Moment, msSince } from '../platform/clock.ts';

/**
 * Whether a request that read a session at `readAt` may restore it when its record is missing (see `TOMBSTONE_MS`).
 *
 * @param timeoutMs the driver's own deadline of an operation, in milliseconds.
 */
export function mayRestore(readAt: Moment, timeoutMs: number): boolean {
  return msSince(readAt) < TOMBSTONE_MS - timeoutMs;
}
