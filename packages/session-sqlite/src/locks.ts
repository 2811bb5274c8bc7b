import { createError, retry } from '@coatcheck/session-core/driver';
import { explain, isLocked } from './errors.ts';
import { DRIVER } from './options.ts';

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
  // Most statements find no lock, and need no more than this.
  try {
    signal.throwIfAborted();
    return work();
  } catch (error) {
    if (!isLocked(error)) throw explain(error);
  }
  return retry(work, {
    signal,
    forMs: timeoutMs * 0.9,
    pauseMs: RETRY_MS,
    judge: (error) => (isLocked(error) ? { error: locked(), transient: true } : { error: explain(error) }),
  });
}

// `refused` and not `unavailable`: reads need no lock, and the circuit breaker would make them fail as well.
function locked(): Error {
  return createError(
    DRIVER,
    'refused',
    'Another process or transaction has locked the database, so nothing was stored. Does a backup or a migration keep a transaction open?',
  );
}
