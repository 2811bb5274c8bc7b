import type { SessionDriver } from '@coatcheck/session-core';
import type { Kind, Verdict } from './visits.ts';

/** The deadline of every driver in the table. */
export const TIMEOUT_MS = 1000;

/** One line of the table: a fault, and how to bring it about. */
export interface Fault {
  /** In words that go into the table. */
  name: string;
  /** Starts everything that the fault needs, with the driver that will meet it. */
  open(): Promise<Scene>;
  /** What the visitors do. Default: read, and write. */
  kinds?: Kind[];
  /** Whether it goes by itself: visitors come all the time, from when it begins until all is well. */
  passes?: boolean;
  /** Whether what was acknowledged before the fault may be lost with it; it is counted in `note`. */
  mayLose?: boolean;
}

export interface Scene {
  driver: SessionDriver;
  /** Brings the fault about; `keys` are those of the sessions in the backend. With `passes` it resolves when the cause is over. */
  strike(keys: string[]): Promise<unknown>;
  mend?(): Promise<unknown>;
  /** What else is to be said under the table, when everything is over. */
  note?(verdict: Verdict): Promise<string>;
  close(): Promise<unknown>;
}
