import { testDriver, testStore } from '@coatcheck/session-core/testing';
import memory from '@coatcheck/session-memory/runtime';
import { describe, it } from 'vitest';
import { withFakeClock } from '@coatcheck/test-support/clock';
import { openMemoryStore } from '../src/store.ts';

describe('the store', () => {
  const { passTime } = withFakeClock('performance');
  // Processes do not share this memory, so both stores of a test are the same one.
  const store = openMemoryStore({});
  testStore({
    it,
    createStore: () => ({ ...store, close: async () => undefined }),
    passTime,
  });
});

describe('the driver', () => {
  testDriver({ it, createDriver: (config) => memory(config) });
});
