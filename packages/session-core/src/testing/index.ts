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
 * What every store must do: the contract is `SessionStore`. A failure says which rule of it was broken, and what to do. A store that is
 * not atomic runs the same tests; where it can promise less, the test asks for that.
 *
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
 * What every driver must do, played as Astro plays it.
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
