export interface PauseOptions {
  /** Ends the pause early. The caller then checks the signal, and says why it has failed so far. */
  signal?: AbortSignal;
  /** Whether a process that waits for nothing else may end meanwhile. Default: false. */
  idle?: boolean;
}

/** Resolves after so many milliseconds, or when the signal aborts. */
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
