import { testDriver, testStore } from '@coatcheck/session-core/testing';
import memory from '@coatcheck/session-memory/runtime';
import { describe, it } from 'vitest';
import { openMemoryStore } from '../src/store.ts';

describe('the store', () => {
  // Two processes never share this memory, so that both stores of a test are one.
  const store = openMemoryStore({});
  testStore({ it, createStore: () => ({ ...store, close: async () => undefined }), slackMs: 20 });
});

describe('the driver', () => {
  testDriver({ it, createDriver: (config) => memory(config) });
});
