import type { SessionDriver } from '@coatcheck/session-core';
import type { VisitedSite } from './visited-site.ts';
import type { Kind, Verdict } from './visits.ts';

/** The option `timeout` of every driver in the table, in milliseconds. */
export const TIMEOUT_MS = 1000;

/** One row of the table: a fault, and how to cause it. */
export interface Fault {
  /** The description of the fault in the table. */
  name: string;
  /** Starts everything that the fault needs, and creates the driver under test. */
  open(): Promise<Scene>;
  /**
   * The kinds of request that visitors send during the fault.
   *
   * @default ['read', 'write']
   */
  kinds?: Kind[];
  /**
   * Whether the fault ends by itself. Then visitors send requests continuously, from before the fault until after the recovery.
   *
   * @default false
   */
  endsByItself?: boolean;
  /**
   * Whether the fault may lose writes that were acknowledged before it. `note` says how many it has lost.
   *
   * @default false
   */
  mayLose?: boolean;
}

/** A backend that works, with a driver, and the means to break it. */
export type Scene = SceneActions & ({ driver: SessionDriver } | { site: VisitedSite });

/** What happens in a scene. */
export interface SceneActions {
  /**
   * Causes the fault. If the fault ends by itself, resolves when its cause is over.
   *
   * @param keys the keys of the sessions in the backend.
   */
  inject(keys: string[]): Promise<unknown>;
  /** Ends the fault. Absent if the fault ends by itself. */
  repair?(): Promise<unknown>;
  /** Resolves to a footnote for the table. Called when the fault is over. */
  note?(verdict: Verdict): Promise<string>;
  close(): Promise<unknown>;
}
