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
