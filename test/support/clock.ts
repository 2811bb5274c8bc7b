import { afterEach, beforeEach, onTestFinished, vi } from 'vitest';

/** Moves the clock alone, for one test: files, sockets and promises go on. */
export function moveClock(ms: number): void {
  const to = Date.now() + ms;
  vi.useFakeTimers({ toFake: ['Date'] });
  vi.setSystemTime(to);
  onTestFinished(() => void vi.useRealTimers());
}

/**
 * For the tests of this file time passes only when one says so, and no sooner on a busy machine. Timers go by the real clock, because real
 * backends are waited for.
 */
export function withFakeClock(...also: 'performance'[]): { passTime(ms: number): void } {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['Date', ...also] }));
  afterEach(() => void vi.useRealTimers());
  return { passTime: (ms) => void vi.advanceTimersByTime(ms) };
}
