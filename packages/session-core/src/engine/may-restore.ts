import { TOMBSTONE_MS } from '../contract/tombstone.ts';

import { type Moment, msSince } from '../platform/clock.ts';

/** Whether a request that read a session at this moment may still put it back when the backend has lost it. */
export function mayRestore(readAt: Moment, timeoutMs: number): boolean {
  return msSince(readAt) < TOMBSTONE_MS - timeoutMs;
}
