import { testMigration } from './driver-migration.ts';
import { testSecrets } from './driver-secrets.ts';
import { testSessions } from './driver-sessions.ts';
import type { DriverSuite, DriverTests } from './driver-suite.ts';
import { testChanges } from './store-changes.ts';
import { testExpiry } from './store-expiry.ts';
import { testFailures } from './store-failures.ts';
import { testFields } from './store-fields.ts';
import { testHistories } from './store-histories.ts';
import { testRaces } from './store-races.ts';
import { testRemoval } from './store-removal.ts';

import { storeTests, type StoreSuite } from './store-suite.ts';

export type { It } from './assert.ts';
export type { DriverSuite } from './driver-suite.ts';
export type { StoreSuite } from './store-suite.ts';

/**
 * Registers the conformance tests for a store: the contract of `SessionStore`. A failure names the rule that was broken and says what to
 * do. A store with `atomic: false` runs the same tests; some check less for it.
 *
 * @throws {TypeError} if the suite has neither `passTime` nor `timeLeft`.
 * @example
 * testStore({ it, createStore: () => openStore(url), timeLeft: (key) => client.pttl(key) });
 */
export function testStore(suite: StoreSuite): void {
  const tests = storeTests(suite);
  testFields(tests);
  testChanges(tests);
  testExpiry(tests);
  testRemoval(tests);
  testHistories(tests);
  testRaces(tests);
  testFailures(tests, suite);
}

/**
 * Registers the conformance tests for a driver. They call the driver as Astro does.
 *
 * @example
 * testDriver({ it, createDriver: (config) => thing({ ...config, url }) });
 */
export function testDriver({ it, ...suite }: DriverSuite): void {
  const tests: DriverTests = { ...suite, it: (name, run) => void it(name, run, TIMEOUT_MS) };
  testSessions(tests);
  testSecrets(tests);
  testMigration(tests);
}

const TIMEOUT_MS = 60_000;
