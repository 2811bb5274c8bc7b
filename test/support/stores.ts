import type { Change, StoreCall } from '@coatcheck/session-core/driver';

// Arguments for tests that call a store without the engine.

/** A call that is aborted after `ms` milliseconds. */
export function call(ms = 60_000): StoreCall {
  return { signal: AbortSignal.timeout(ms) };
}

export function change(parts: Partial<Change>): Change {
  return { set: new Map(), unset: [], lifetimeMs: 3_600_000, defaultTtlMs: 3_600_000, now: Date.now(), ...parts };
}

let keys = 0;

export function newKey(): string {
  return `test:${process.pid}:${Date.now()}:${(keys += 1)}`;
}
