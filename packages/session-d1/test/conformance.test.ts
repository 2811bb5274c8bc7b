import { testDriver, testStore } from '@coatcheck/session-core/testing';
import { startIsolates, type Isolates } from '@coatcheck/test-support/isolates';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

let isolates: Isolates;
beforeAll(async () => {
  isolates = await startIsolates(new URL('workers/conformance.ts', import.meta.url), 1, {
    d1Databases: { DB: 'sessions' },
  });
}, 60_000);
afterAll(() => isolates?.[Symbol.asyncDispose]());

/** Registers a test that workerd runs. */
function inWorkerd(name: string): void {
  it.each([name])('%s', { timeout: 60_000 }, async () => {
    expect((await isolates.all[0]!.fetch(`/?name=${encodeURIComponent(name)}`)).text).toBe('passed');
  });
}

// The Worker creates it.
const inWorker = () => undefined as never;

describe('the store', () => {
  testStore({ it: inWorkerd, createStore: inWorker, timeLeft: inWorker });
});

describe('the driver', () => {
  testDriver({ it: inWorkerd, createDriver: inWorker, dump: inWorker, legacyDriver: inWorker });
});
