import { integer, type OptionKinds, type SharedOptions, type EnvRef } from '@coatcheck/session-core/driver';

/** The options of `memoryDriver()`. */
export interface MemoryDriverConfig extends SharedOptions {
  /**
   * The maximum number of sessions, from 1 to 16,777,216. Beyond it, the least recently used sessions are evicted.
   *
   * @default 100_000
   */
  maxSessions?: number | EnvRef | undefined;
  /**
   * The approximate maximum size of all sessions together, in bytes, at least 1. Beyond it, the least recently used sessions are evicted. A
   * single session that is larger is refused with the code `invalid-data`.
   *
   * @default 268_435_456 (256 MiB)
   */
  maxBytes?: number | EnvRef | undefined;
}

// A Map cannot hold more entries. The cache allocates space for all of them when it is created: 2 ** 32 would crash the process.
const MAX_SESSIONS = 2 ** 24;

export const memoryKinds: OptionKinds<Omit<MemoryDriverConfig, keyof SharedOptions>> = {
  maxSessions: integer({ from: 1, to: MAX_SESSIONS }),
  maxBytes: integer({ from: 1 }),
};
