import { isSessionDriverError } from '../contract/errors.ts';
import type { StoreCall } from '../contract/store.ts';

import { msSince, thisMoment } from '../platform/clock.ts';

/** The error of `withDeadline` when the deadline has passed. */
export const DEADLINE: Error = new Error('deadline');

/** How late a timer may fire on a busy machine. A later one shows that the event loop was blocked or the process was suspended. */
const TIMER_SLACK_MS = 50;

/**
 * Runs `work` with a deadline, in milliseconds. When `work` has not settled by then, its signal aborts and the promise rejects with
 * `DEADLINE`. If the work then immediately fails with the code `unavailable`, the promise rejects with that error instead: it says why
 * there was no connection.
 *
 * @param onSettled called when `work` has settled, also after the deadline; with its error when it has failed.
 */
export function withDeadline<Result>(
  ms: number,
  work: (call: StoreCall) => Promise<Result>,
  onSettled?: (failure?: { error: unknown }) => void,
): Promise<Result> {
  return new Promise((resolve, reject) => {
    const controller = new AbortController();
    let isExpired = false;
    const expire = (): void => {
      isExpired = true;
      // In a later task, so that the work can reject first with an error that says more.
      setTimeout(() => reject(DEADLINE), 0);
      controller.abort();
    };
    const startedAt = thisMoment();
    // After the event loop was blocked or the process was suspended, an answer may be waiting in the socket. Give the process time to read
    // it.
    const onTimer = (): void => {
      timer = setTimeout(expire, msSince(startedAt) - ms > TIMER_SLACK_MS ? TIMER_SLACK_MS : 0);
    };
    let timer = setTimeout(onTimer, ms);
    work({ signal: controller.signal }).then(
      (result) => {
        clearTimeout(timer);
        onSettled?.();
        resolve(result);
      },
      (error: Error) => {
        clearTimeout(timer);
        onSettled?.({ error });
        if (!isExpired || isUnavailable(error)) reject(error);
      },
    );
  });
}

function isUnavailable(error: unknown): boolean {
  return isSessionDriverError(error) && error.code === 'unavailable';
}
