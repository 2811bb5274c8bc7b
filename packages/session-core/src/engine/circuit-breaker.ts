import { report } from '../contract/diagnostics.ts';
import { createError, isSessionDriverError, type SessionDriverError } from '../contract/errors.ts';
import type { StoreCall } from '../contract/store.ts';
import { msSince, thisMoment } from '../platform/clock.ts';
import { pause } from '../platform/retry.ts';

import { DEADLINE, withDeadline } from './timeout.ts';

export interface CircuitBreakerOptions {
  driver: string;
  timeoutMs: number;
  /** Asks the backend anything at all; resolves when it answers. */
  probe(call: StoreCall): Promise<unknown>;
}

/** Runs one operation on a backend: within the deadline, and not at all while the backend is known to be down. */
export type CircuitBreaker = <Result>(operation: string, work: (call: StoreCall) => Promise<Result>) => Promise<Result>;

/** How long the knowledge that a backend is down is good for. Older, the next operation tries for itself. */
const KNOWN_FOR_MS = 1500;
const PROBE_EVERY_MS = 100;
const PROBE_TIMEOUT_MS = 1000;
/** Nobody asks any more: the probing stops, so that an idle process is quiet. */
const PROBE_WHILE_ASKED_MS = 30_000;

/**
 * A backend that is down fails fast: after one operation has waited out its deadline, the others are refused at once while one probe
 * at a time looks whether the backend is back. Any answer, even a late one, ends that.
 */
export function createCircuitBreaker({ driver, timeoutMs, probe }: CircuitBreakerOptions): CircuitBreaker {
  let down = false;
  /** Why, as far as its errors say. */
  let reason: SessionDriverError | undefined;
  let downKnownAt = thisMoment();
  let lastAnswerAt = { wall: 0, monotonic: -1 };
  let lastAskedAt = thisMoment();
  let probing = false;

  const answered = (): void => {
    lastAnswerAt = thisMoment();
    if (!down) return;
    down = false;
    report('recovery', driver);
  };

  const failed = (error: SessionDriverError): void => {
    reason = error.code === 'unavailable' ? error : undefined;
    downKnownAt = thisMoment();
    if (!down) report('outage', driver);
    down = true;
    if (!probing) void probeUntilBack();
  };

  const attempt = <Result>(ms: number, work: (call: StoreCall) => Promise<Result>): Promise<Result> =>
    withDeadline(ms, (call) => {
      const answer = work(call);
      answer.then(answered, (error: unknown) => isAnswer(error) && answered());
      return answer;
    });

  const probeUntilBack = async (): Promise<void> => {
    probing = true;
    while (down && msSince(lastAskedAt) < PROBE_WHILE_ASKED_MS) {
      await pause(PROBE_EVERY_MS, { idle: true });
      if (!down) break;
      await attempt(PROBE_TIMEOUT_MS, probe).catch(() => undefined);
      downKnownAt = thisMoment();
    }
    probing = false;
  };

  return async (operation, work) => {
    const startedAt = (lastAskedAt = thisMoment());
    if (down && msSince(downKnownAt) < KNOWN_FOR_MS) {
      const why = reason ? ` The last error was: ${reason.message.replace(`[${driver}] `, '')}` : '';
      throw createError(
        driver,
        'unavailable',
        'The backend does not answer; nothing was sent. It is tried again all the time, and sessions work as soon as it is back.' +
          why,
        { operation, cause: reason?.cause },
      );
    }
    if (down) {
      // Whoever comes next does not wait as well.
      downKnownAt = startedAt;
      if (!probing) void probeUntilBack();
    }
    try {
      return await attempt(timeoutMs, work);
    } catch (error) {
      if (error === DEADLINE) {
        const unclear = READING.has(operation) ? '' : ' What was sent may have been carried out; it is not sent again.';
        const timeout = createError(
          driver,
          'timeout',
          `The backend did not answer within ${timeoutMs} ms.${unclear} Is it running and reachable? The option \`timeout\` sets the deadline.`,
          { operation },
        );
        if (lastAnswerAt.monotonic < startedAt.monotonic) failed(timeout);
        throw timeout;
      }
      if (isSessionDriverError(error)) {
        if (error.code === 'unavailable' || error.code === 'timeout') failed(error);
        error.operation ??= operation;
        throw error;
      }
      throw createError(driver, 'refused', 'The backend refused; the cause says why.', { operation, cause: error });
    }
  };
}

/** What stores nothing, whatever becomes of it. */
const READING = new Set(['read', 'sweep']);

/** Whether an error shows that the backend is there. One that a store passes on as it got it may be anything. */
function isAnswer(error: unknown): boolean {
  return isSessionDriverError(error) && (error.code === 'refused' || error.code === 'configuration');
}
