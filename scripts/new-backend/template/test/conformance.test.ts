import { valueStore } from '@coatcheck/session-core/driver';
import { testDriver, testStore } from '@coatcheck/session-core/testing';
import thing from '@coatcheck/session-thing/runtime';
import { describe, it } from 'vitest';
import { withFakeClock } from '../../../test/support/clock.ts';
import { openBackend } from '../src/backend.ts';

// TODO: against the real backend. `passTime` moves a clock; where the backend's clock cannot be moved, pass `timeLeft` instead, which asks the
// backend how long a record has left. The README of session-core says what else there is.
describe('the store', () => {
  const { passTime } = withFakeClock();
  testStore({ it, createStore: () => valueStore(openBackend('test')), passTime });
});

describe('the driver', () => {
  testDriver({ it, createDriver: (config) => thing({ url: 'test', ...config }) });
});
