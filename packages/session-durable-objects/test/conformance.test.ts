import { testDriver, testStore } from '@coatcheck/session-core/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startObjects, type Isolate } from './support/objects.ts';

let isolates: Awaited<ReturnType<typeof startObjects>>;
let worker: Isolate;
beforeAll(async () => {
  isolates = await startObjects('conformance.ts');
  worker = isolates.all[0]!;
}, 60_000);
afterAll(() => isolates?.[Symbol.asyncDispose]());

/** Registers a test that workerd runs. */
function inWorkerd(name: string): void {
  it.each([name])('%s', { timeout: 60_000 }, async () => {
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
