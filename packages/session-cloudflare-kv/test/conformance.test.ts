import { testDriver, testStore } from '@coatcheck/session-core/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startWorker, type Worker } from './support/worker.ts';

let worker: Worker;
beforeAll(async () => {
  worker = await startWorker('conformance.ts');
}, 60_000);
afterAll(() => worker[Symbol.asyncDispose]());

/** Registers a test that workerd runs. */
function inWorkerd(name: string): void {
  it.each([name])('%s', { timeout: 30_000 }, async () => {
    expect((await worker.fetch(`/?name=${encodeURIComponent(name)}`)).text).toBe('passed');
  });
}

// The Worker creates it.
const inWorker = () => undefined as never;

describe('the store', () => {
  testStore({ it: inWorkerd, createStore: inWorker, passTime: inWorker });
});

describe('the driver', () => {
  testDriver({ it: inWorkerd, createDriver: inWorker, dump: inWorker, legacyDriver: inWorker });
});
