import { report } from '../contract/diagnostics.ts';
import { createError, isSessionDriverError, type SessionDriverError } from '../contract/errors.ts';
import type { StoreCall } from '../contract/store.ts';
import { msSince, thisMoment } from '../platform/clock.ts';
import { pause } from '../platform/retry.ts';

import { DEADLINE, withDeadline } from './timeout.ts';

/** Options of `createCircuitBreaker`. */
export interface CircuitBreakerOptions {
  driver: string;
  /** The deadline of an operation, in milliseconds. */
  timeoutMs: number;
  /** Sends any request to the backend. Resolves when the backend answers. */
  probe(call: StoreCall): Promise<unknown>;
}

/** Runs one operation on a backend within the deadline. Fails immediately while the backend is known to be down. */
export type CircuitBreaker = <Result>(operation: string, work: (call: StoreCall) => Promise<Result>) => Promise<Result>;

/** How long a failure counts as proof that the backend is down. After it, the next operation is sent to the backend. */
const OPEN_FOR_MS = 1500;
const PROBE_EVERY_MS = 100;
const PROBE_TIMEOUT_MS = 1000;
/** Probing stops after this time without an operation, so that an idle process sends nothing. */
const STOP_PROBING_AFTER_MS = 30_000;

/**
 * Creates the circuit breaker of one backend. After one operation has timed out or could not reach the backend, further operations fail
 * immediately with the code `unavailable`, while one probe at a time checks the backend. Any answer, even a late one, closes the circuit
 * again.
 */
export function createCircuitBreaker({ driver, timeoutMs, probe }: CircuitBreakerOptions): CircuitBreaker {
  let down = false;
  /** The last error that says why; undefined when operations only timed out. */
  let reason: SessionDriverError | undefined;
  let downConfirmedAt = thisMoment();
  /** By the monotonic clock. */
  let lastAnswerAt = -1;
  let lastOperationAt = thisMoment();
  let probing = false;

  const onSettled = (failure?: { error: unknown }): void => {
    if (failure && !isAnswer(failure.error)) return;
    lastAnswerAt = performance.now();
    if (!down) return;
    down = false;
    report('recovery', driver);
  };

  const failed = (error: SessionDriverError): void => {
    reason = error.code === 'unavailable' ? error : undefined;
    downConfirmedAt = thisMoment();
    if (!down) report('outage', driver);
    down = true;
    void probeUntilBack();
  };

  const probeUntilBack = async (): Promise<void> => {
    if (probing) return;
    probing = true;
    while (down && msSince(lastOperationAt) < STOP_PROBING_AFTER_MS) {
      await pause(PROBE_EVERY_MS, { idle: true });
      if (!down) break;
      await withDeadline(PROBE_TIMEOUT_MS, probe, onSettled).catch(() => undefined);
      downConfirmedAt = thisMoment();
    }
    probing = false;
  };

  return async (operation, work) => {
    const startedAt = (lastOperationAt = thisMoment());
    if (down && msSince(downConfirmedAt) < OPEN_FOR_MS) {
      const why = reason ? ` The last error was: ${reason.message.replace(`[${driver}] `, '')}` : '';
      throw createError(
        driver,
        'unavailable',
        'The backend does not answer; nothing was sent. Sessions work again as soon as it answers.' + why,
        { operation, cause: reason?.cause },
      );
    }
    if (down) {
      // Only this operation is sent. Those that start while it waits fail immediately.
      downConfirmedAt = startedAt;
      void probeUntilBack();
    }
    try {
      return await withDeadline(timeoutMs, work, onSettled);
    } catch (error) {
      if (error === DEADLINE) {
        const ambiguous = READ_ONLY.has(operation) ? '' : ' The outcome of the write is unknown; it is not retried.';
        const timeout = createError(
          driver,
          'timeout',
          `The backend did not answer within ${timeoutMs} ms.${ambiguous} Is it running and reachable? The option \`timeout\` sets the deadline.`,
          { operation },
        );
        if (lastAnswerAt < startedAt.monotonic) failed(timeout);
        throw timeout;
      }
      if (isSessionDriverError(error)) {
        if (error.code === 'unavailable' || error.code === 'timeout') failed(error);
        error.operation ??= operation;
        throw error;
      }
      throw createError(driver, 'refused', 'The backend answered with an error. See the cause for the reason.', {
        operation,
        cause: error,
      });
    }
  };
}

/** Operations that write no session data, so an unknown outcome does not matter. */
const READ_ONLY = new Set(['read', 'sweep']);

/** Whether an error shows that the backend answered. Errors that a store passes on unchanged show nothing, so they do not count. */
function isAnswer(error: unknown): boolean {
  return isSessionDriverError(error) && (error.code === 'refused' || error.code === 'configuration');
}
