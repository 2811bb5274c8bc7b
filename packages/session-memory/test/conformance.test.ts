import { testDriver, testStore } from '@coatcheck/session-core/testing';
import memory from '@coatcheck/session-memory/runtime';
import { afterEach, beforeEach, describe, it, vi } from 'vitest';
import { openMemoryStore } from '../src/store.ts';

describe('the store', () => {
  withFakeClocks();
  // Two processes never share this memory, so that both stores of a test are one.
  const store = openMemoryStore({});
  testStore({
    it,
    createStore: () => ({ ...store, close: async () => undefined }),
    slackMs: 20,
    passTime,
  });
});

describe('the driver', () => {
  testDriver({ it, createDriver: (config) => memory(config) });
});

/** Time passes when the suite says so, and no sooner on a busy machine. */
function withFakeClocks(): void {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['Date', 'performance'] }));
  afterEach(() => void vi.useRealTimers());
}

async function passTime(ms: number): Promise<void> {
  vi.advanceTimersByTime(ms);
}
