import { isSessionDriverError } from '../contract/errors.ts';
import type { StoreCall } from '../contract/store.ts';

import { msSince, thisMoment } from '../platform/clock.ts';

export const DEADLINE: Error = new Error('deadline');

/** What a timer may be late by on a machine that is merely busy. */
const LATE_MS = 50;

/**
 * Rejects when `work` has not settled in time; its signal aborts then. With DEADLINE, unless the work says at once that nothing was sent:
 * a store that has waited for a connection knows why there is none.
 */
export function withDeadline<Result>(ms: number, work: (call: StoreCall) => Promise<Result>): Promise<Result> {
  return new Promise((resolve, reject) => {
    const controller = new AbortController();
    let isOver = false;
    const expire = (): void => {
      isOver = true;
      setTimeout(() => reject(DEADLINE), 0);
      controller.abort();
    };
    const startedAt = thisMoment();
    // After a blocked loop or a frozen process the answer may lie unread in the socket: it is read before the deadline counts.
    const onTime = (): void => {
      timer = msSince(startedAt) - ms > LATE_MS ? setTimeout(expire, LATE_MS) : setTimeout(expire, 0);
    };
    let timer = setTimeout(onTime, ms);
    work({ signal: controller.signal })
      .then(resolve, (error: Error) => {
        if (!isOver || isUnavailable(error)) reject(error);
      })
      .finally(() => clearTimeout(timer));
  });
}

function isUnavailable(error: unknown): boolean {
  return isSessionDriverError(error) && error.code === 'unavailable';
}
