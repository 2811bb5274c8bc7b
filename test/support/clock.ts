import { afterEach, beforeEach, onTestFinished, vi } from 'vitest';

/** Moves only the clock, for one test. Files, sockets and promises work as usual. */
export function moveClock(ms: number): void {
  const to = Date.now() + ms;
  vi.useFakeTimers({ toFake: ['Date'] });
  vi.setSystemTime(to);
  onTestFinished(() => void vi.useRealTimers());
}

/**
 * Uses a fake clock for the tests of this file. It moves only when a test advances it, even on a busy machine. Timers use the real clock,
 * because tests wait for real backends.
 */
export function withFakeClock(...also: 'performance'[]): { passTime(ms: number): void } {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['Date', ...also] }));
  afterEach(() => void vi.useRealTimers());
  return { passTime: (ms) => void vi.advanceTimersByTime(ms) };
}
