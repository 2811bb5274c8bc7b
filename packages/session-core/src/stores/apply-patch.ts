import { expiryOf, isCounted, isExpired } from '../codec/field.ts';
import type { StoredRecord } from '../codec/packed-record.ts';

import type { Change, Fields, PatchResult } from '../contract/store.ts';

/**
 * Applies a change to a record, as `SessionStore.patch` requires. For stores that are written in JavaScript.
 *
 * @param current the live record; null when it is missing or expired. It is not modified.
 * @param clock the time by the store's clock, in epoch milliseconds.
 * @returns the new record, or the reason for which the change was rejected.
 */
export function applyChange(
  current: StoredRecord | null,
  change: Change,
  clock: number,
): StoredRecord | Exclude<PatchResult, 'applied' | 'destroyed'> {
  if (change.mustExist && !current) return 'missing';
  if (change.mustBeNew && current) return 'conflict';
  for (const [name, expected] of change.expect ?? []) {
    if ((current?.fields.get(name) ?? null) !== expected) return 'conflict';
  }

  const fields: Fields = new Map(current?.fields);
  for (const name of change.unset) fields.delete(name);
  for (const name of change.purge ?? []) {
    if (isExpired(expiryOf(fields.get(name) ?? ''), change.now)) fields.delete(name);
  }
  for (const [name, value] of change.ifAbsent ?? []) {
    if (!fields.has(name)) fields.set(name, value);
  }
  for (const [name, value] of change.set) fields.set(name, value);

  return {
    fields,
    expires: clock + lifetimeOf(fields, change),
    idleUntil: clock + (change.idleMs ?? Infinity),
  };
}

function lifetimeOf(fields: Fields, change: Change): number {
  let longest: number | undefined;
  for (const value of fields.values()) {
    if (!isCounted(value)) continue;
    const expires = expiryOf(value);
    const lifetime = expires === undefined ? (change.defaultTtlMs ?? Infinity) : expires - change.now;
    longest = Math.max(longest ?? -Infinity, lifetime);
  }
  return longest ?? (change.lifetimeMs === 'never' ? Infinity : change.lifetimeMs);
}
