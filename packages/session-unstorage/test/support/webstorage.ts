// Runs the conformance suite on the Web Storage of Node, which needs flags:
//   node --experimental-webstorage --localstorage-file=<file> webstorage.ts
import { valueStore } from '@coatcheck/session-core/driver';
import { testDriver, testStore } from '@coatcheck/session-core/testing';
import { fromUnstorage } from '@coatcheck/session-unstorage';
import localStorageDriver from 'unstorage/drivers/localstorage';
import sessionStorageDriver from 'unstorage/drivers/session-storage';
import { unstorageBackend } from '../../src/backend.ts';

const tests: { name: string; run(): Promise<void> }[] = [];
const it = (name: string, run: () => Promise<void>): unknown => tests.push({ name, run });

/** A clock that moves only when a test advances it. */
let now = Date.now();
const realNow = Date.now;
Date.now = () => now;
const passTime = (ms: number): void => void (now += ms);

for (const driver of [
  localStorageDriver({ storage: globalThis.localStorage }),
  sessionStorageDriver({ storage: globalThis.sessionStorage }),
]) {
  testStore({ it, createStore: () => valueStore(unstorageBackend(driver, 5000)), passTime });
  testDriver({ it, createDriver: (config) => fromUnstorage(driver, config) });
}

let failures = 0;
for (const { name, run } of tests) {
  now = realNow();
  await run().catch((error: unknown) => {
    failures++;
    console.log(`failed: ${name}`, error);
  });
}
console.log(`${tests.length - failures} passed, ${failures} failed`);
