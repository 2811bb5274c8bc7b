import { valueStore } from '@coatcheck/session-core/driver';
import { testDriver, testStore } from '@coatcheck/session-core/testing';
import postgres from '@coatcheck/session-postgres/runtime';
import { describe, it } from 'vitest';
import { withFakeClock } from '@coatcheck/test-support/clock';
import { openBackend } from '../src/backend.ts';

// TODO: run this on the real backend. `passTime` advances a fake clock. If the backend has a clock of its own, pass `timeLeft` instead, which asks the
// backend how long a record has left. The README of session-core lists the other options.
describe('the store', () => {
  const { passTime } = withFakeClock();
  testStore({ it, createStore: () => valueStore(openBackend('test')), passTime });
});

describe('the driver', () => {
  testDriver({ it, createDriver: (config) => postgres({ url: 'test', ...config }) });
});
