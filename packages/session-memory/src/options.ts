import { whole, type EnvRef, type OptionKinds, type SharedOptions } from '@coatcheck/session-core';

export interface MemoryDriverConfig extends SharedOptions {
  /** How many sessions are kept; beyond that, the ones not used for the longest time go. Default: 100,000. */
  maxSessions?: number | EnvRef | undefined;
  /** How many bytes all sessions together may take, roughly; beyond that, the same. Default: 268,435,456 (256 MiB). */
  maxBytes?: number | EnvRef | undefined;
}

export const memoryKinds: OptionKinds<Omit<MemoryDriverConfig, keyof SharedOptions>> = {
  maxSessions: whole({ from: 1, to: 2 ** 32 - 1 }),
  maxBytes: whole({ from: 1 }),
};
