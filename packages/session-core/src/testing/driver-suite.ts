import { parse, stringify } from 'devalue';
import { fail, type It } from './assert.ts';
import type { SharedOptions } from '../config/option.ts';

import type { SessionDriver } from '../contract/driver.ts';

/** The driver under test, and the test runner. */
export interface DriverSuite {
  it: It;
  /**
   * Creates a driver on the backend under test, as the `runtime` of a package does. Called several times in a test; all these drivers must
   * share the same sessions.
   */
  createDriver(config: SharedOptions): SessionDriver | Promise<SessionDriver>;
  /**
   * Everything that the backend stores, keys included, in one string: what an attacker who copies the backend would see. Without it, the
   * suite does not check which data is encrypted.
   */
  dump?(): Promise<string>;
  /** Creates Astro's own driver for the same backend. Without it, the suite does not check its migration. */
  legacyDriver?(): SessionDriver | Promise<SessionDriver>;
}

/** A `DriverSuite` whose `it` sets a timeout for each test. */
export interface DriverTests extends Omit<DriverSuite, 'it'> {
  it(name: string, run: () => Promise<void>): void;
}

export const DAY: number = 86_400_000;
export const SECRET = 'a-secret-of-the-conformance-suite-42';

/** One value of a session, as Astro writes it. */
export interface Entry {
  data: unknown;
  /** In epoch milliseconds. Undefined: it does not expire by itself. */
  expires: number | undefined;
}

export function entry(data: unknown, expires: number | undefined): Entry {
  return { data, expires };
}

/** A session as Astro writes it, in which all values expire at the same time. */
export function payload(data: Record<string, unknown>, expires: number | undefined): string {
  return stringify(new Map(Object.entries(data).map(([key, value]) => [key, entry(value, expires)])));
}

/** Parses what a driver returned, as Astro does. Fails if there is no session. */
function hydrate(read: unknown): Map<string, Entry> {
  if (read === null) fail('expected a session, got none');
  return parse(typeof read === 'string' ? read : JSON.stringify(read)) as Map<string, Entry>;
}

/** The values of a session that a driver returned. */
export function values(read: unknown): Record<string, unknown> {
  return Object.fromEntries([...hydrate(read)].map(([key, { data }]) => [key, data]));
}

/** A session that a driver returned, with an edit, as Astro writes it. */
export function changed(read: unknown, edit: (map: Map<string, Entry>) => unknown): string {
  const map = hydrate(read);
  edit(map);
  return stringify(map);
}
