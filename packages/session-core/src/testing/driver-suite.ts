import { parse, stringify } from 'devalue';
import { fail, type It } from './assert.ts';
import type { SharedOptions } from '../config/option.ts';

import type { SessionDriver } from '../contract/driver.ts';

export interface DriverSuite {
  it: It;
  /** The `runtime` of a package, on the one backend under test. */
  createDriver(config: SharedOptions): SessionDriver | Promise<SessionDriver>;
  /** Everything that the backend holds, keys included, as text that shows whatever it would show a thief. */
  dump?(): Promise<string>;
  /** Astro's own driver for the backend, where it has one. */
  legacyDriver?(): SessionDriver | Promise<SessionDriver>;
}

/** The same, with a time-out for each test. */
export interface DriverTests extends Omit<DriverSuite, 'it'> {
  it(name: string, run: () => Promise<void>): void;
}

export const DAY: number = 86_400_000;
export const SECRET = 'a-secret-of-the-conformance-suite-42';

/** What a session is as Astro writes it. */
export interface Entry {
  data: unknown;
  expires: number;
}

export function entry(data: unknown, expires: number): Entry {
  return { data, expires };
}

export function payload(data: Record<string, unknown>, expires: number): string {
  return stringify(new Map(Object.entries(data).map(([key, value]) => [key, entry(value, expires)])));
}

function hydrate(read: unknown): Map<string, Entry> {
  if (read === null) fail('the session is not there');
  return parse(typeof read === 'string' ? read : JSON.stringify(read)) as Map<string, Entry>;
}

export function values(read: unknown): Record<string, unknown> {
  return Object.fromEntries([...hydrate(read)].map(([key, { data }]) => [key, data]));
}

export function changed(read: unknown, edit: (map: Map<string, Entry>) => unknown): string {
  const map = hydrate(read);
  edit(map);
  return stringify(map);
}
