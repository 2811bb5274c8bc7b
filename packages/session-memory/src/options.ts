import { integer, type OptionKinds, type SharedOptions, type EnvRef } from '@coatcheck/session-core/driver';

export interface MemoryDriverConfig extends SharedOptions {
  /** How many sessions are kept; beyond that, the ones not used for the longest time go. Default: 100,000. */
  maxSessions?: number | EnvRef | undefined;
  /** How many bytes all sessions together may take, roughly; beyond that, the same. Default: 268,435,456 (256 MiB). */
  maxBytes?: number | EnvRef | undefined;
}

// No Map holds more, and the cache makes room for all of them when it is opened: a process does not survive 2 ** 32.
const MOST_SESSIONS = 2 ** 24;

export const memoryKinds: OptionKinds<Omit<MemoryDriverConfig, keyof SharedOptions>> = {
  maxSessions: integer({ from: 1, to: MOST_SESSIONS }),
  maxBytes: integer({ from: 1 }),
};
