import { onTestFinished, vi } from 'vitest';

/** Moves the clock alone, for one test: files, sockets and promises go on. */
export function moveClock(ms: number): void {
  const to = Date.now() + ms;
  vi.useFakeTimers({ toFake: ['Date'] });
  vi.setSystemTime(to);
  onTestFinished(() => void vi.useRealTimers());
}
