import { testDriver, testStore } from '@coatcheck/session-core/testing';
import memory from '@coatcheck/session-memory/runtime';
import { afterEach, beforeEach, describe, it, vi } from 'vitest';
import { openMemoryStore } from '../src/store.ts';

describe('the store', () => {
  withFakeDate();
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
function withFakeDate(): void {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['Date'] }));
  afterEach(() => void vi.useRealTimers());
}

async function passTime(ms: number): Promise<void> {
  vi.setSystemTime(Date.now() + ms);
}
