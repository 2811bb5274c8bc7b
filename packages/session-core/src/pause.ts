/**
 * Resolves after so many milliseconds, or when the signal aborts: whoever waits looks at the signal then, and says why it has failed so far. Keeps
 * no process alive: an operation has a deadline, which does.
 */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', end);
      resolve();
    };
    const timer: ReturnType<typeof setTimeout> = setTimeout(end, ms);
    (timer as { unref?(): void }).unref?.();
    signal?.addEventListener('abort', end);
  });
}
