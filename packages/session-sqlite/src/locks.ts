import { createError, msSince, pause, thisMoment, type Moment } from '@coatcheck/session-core/driver';
import { DRIVER, explain, isLocked } from './errors.ts';

/** How long to wait at most before a statement is tried again, in milliseconds. */
const RETRY_MS = 5;

/**
 * Runs `work`, and again while the database is locked by another process. SQLite runs in this process and would block it while it waits for
 * the lock. So it does not wait, and other requests go on in between.
 *
 * @param timeoutMs the timeout of one operation, in milliseconds.
 * @throws an error with the code `refused` if the database is locked for most of the timeout.
 */
export async function unlocked<Result>(signal: AbortSignal, timeoutMs: number, work: () => Result): Promise<Result> {
  let startedAt: Moment | undefined;
  for (;;) {
    signal.throwIfAborted();
    try {
      return work();
    } catch (error) {
      if (!isLocked(error)) throw explain(error);
      startedAt ??= thisMoment();
      // Stop before the deadline: this error says more than a timeout does.
      if (msSince(startedAt) > timeoutMs * 0.9) throw locked();
    }
    await pause(Math.random() * RETRY_MS, { signal });
  }
}

// `refused` and not `unavailable`: reads need no lock, and the circuit breaker would make them fail as well.
function locked(): Error {
  return createError(
    DRIVER,
    'refused',
    'Another process or transaction has locked the database, so nothing was stored. Does a backup or a migration keep a transaction open?',
  );
}
