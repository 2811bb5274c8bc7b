/** Options of `pause`. */
export interface PauseOptions {
  /** Ends the pause early when it aborts. The promise still resolves, so that the caller can throw an error of its own. */
  signal?: AbortSignal;
  /**
   * Whether the process may exit during the pause if it has nothing else to wait for.
   *
   * @default false
   */
  idle?: boolean;
}

/** Resolves after this many milliseconds, or when the signal aborts. Never rejects. */
export function pause(ms: number, { signal, idle = false }: PauseOptions = {}): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', end);
      resolve();
    };
    const timer: ReturnType<typeof setTimeout> = setTimeout(end, ms);
    if (idle) (timer as { unref?(): void }).unref?.();
    signal?.addEventListener('abort', end);
  });
}

/** What to do about an attempt that failed. */
export interface Verdict {
  /** The error for the caller. */
  error: unknown;
  /** Whether to try again. */
  transient?: boolean;
}

/** Options of `retry`. */
export interface RetryOptions {
  /** When it aborts, there are no more attempts. */
  signal: AbortSignal;
  /** For how long to try again, in milliseconds. Less than the deadline: an error says more than a timeout does. */
  forMs: number;
  /** The longest pause between two attempts, in milliseconds. Each is a random part of it, so that competitors do not meet again. */
  pauseMs: number;
  /** Judges an error of an attempt. */
  judge(error: unknown): Verdict | Promise<Verdict>;
}

/**
 * Runs `attempt` until it succeeds, or fails in a way that does not go away by itself.
 *
 * @throws the error of the last attempt, as `judge` explains it. Of an attempt that the signal has ended, the attempt before it says more.
 */
export async function retry<Result>(
  attempt: () => Result | Promise<Result>,
  { signal, forMs, pauseMs, judge }: RetryOptions,
): Promise<Result> {
  const until = performance.now() + forMs;
  let last: Verdict | undefined;
  for (;;) {
    if (signal.aborted && last) throw last.error;
    signal.throwIfAborted();
    try {
      return await attempt();
    } catch (error) {
      const verdict = await judge(error);
      if (!verdict.transient) throw verdict.error;
      if (!last || !signal.aborted) last = verdict;
      if (performance.now() > until) throw last.error;
    }
    await pause(Math.random() * pauseMs, { signal });
  }
}
