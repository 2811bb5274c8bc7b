/**
 * The fields of one stored record: field name to encoded value (see `codec/field.ts`). It is a Map because `__proto__` is a legal session
 * key. A name is never empty: a store may use the empty name for its own metadata. Names and values are well-formed strings without NUL. A
 * store treats them as opaque, except for the start of a value: it is the expiry of the field (`expiryOf`), or `-:` if the field does not
 * count for the expiry of the record (`isCounted`). A map that a store returns belongs to the caller, who may change it.
 */
export type Fields = Map<string, string>;

/**
 * The result of a change:
 *
 * - `applied`: the whole change is stored.
 * - `destroyed`: the key has a tombstone, which rejects changes. Nothing is stored.
 * - `missing`: the change has `mustExist`, and there is no live record. Nothing is stored.
 * - `conflict`: a field in `expect` does not have the expected value, or the change has `mustBeNew` and there is a live record. Nothing is
 *   stored.
 */
export type PatchResult = 'applied' | 'destroyed' | 'missing' | 'conflict';

/** The default lifetime of a session, in seconds: 30 days. */
export const DEFAULT_TTL_SECONDS: number = 30 * 24 * 60 * 60;

/** A lifetime in whole milliseconds from now, by the backend's own clock. `never`: it does not expire. */
export type Lifetime = number | 'never';

/**
 * One change of one record. A store applies it in this order:
 *
 * 1. If the key has a tombstone, the result is `destroyed`. An expired record counts as missing, even if the backend still holds it.
 * 2. It checks the conditions: `mustExist`, then `mustBeNew`, then `expect`. If one fails, nothing changes: no field, no lifetime and no
 *    idle limit.
 * 3. It removes the fields in `unset`.
 * 4. It removes the fields in `purge` that have expired by the writer's clock.
 * 5. It writes the fields in `ifAbsent` that the record does not have now. Steps 3 and 4 may have removed them.
 * 6. It writes the fields in `set`. They replace what step 5 wrote.
 * 7. It computes the expiry of the record from all fields that it has now. The new expiry may be earlier than the old one.
 * 8. It sets the idle limit to `idleMs` from now. Without `idleMs`, the record no longer has an idle limit.
 *
 * Lifetimes are relative, because the clocks of the app and the backend may be hours apart. A store does not modify the change object.
 */
export interface Change {
  /** Fields to write unconditionally. */
  set: Fields;
  /** Fields to write only if the record does not have them. Used to restore a record that the backend evicted. */
  ifAbsent?: Fields;
  /** Names of fields to remove. A missing field is not an error. */
  unset: readonly string[];
  /** Names of fields to remove only if their stored expiry is before `now`, because another request may have renewed them. */
  purge?: readonly string[];
  /** Apply the change only if each of these fields has exactly this encoded value. Null means that the field must be missing. */
  expect?: ReadonlyMap<string, string | null>;
  /** Apply the change only if there is a live record. */
  mustExist?: boolean;
  /** Apply the change only if there is no live record. Never combined with `mustExist`. */
  mustBeNew?: boolean;
  /** The remaining lifetime of the longest-lived field that the writer knows: the fields that it sets, and those that it read. */
  lifetimeMs: Lifetime;
  /** How long a field without its own expiry keeps the record alive after this write, in milliseconds. Absent: without a limit. */
  defaultTtlMs?: number;
  /** The idle limit: the record expires after this many milliseconds without a write or a touch. Absent: no limit. */
  idleMs?: number;
  /** The time by the writer's clock, in epoch milliseconds. The expiries stored with fields are compared with it. */
  now: number;
}

/** The context of one operation on a store. */
export interface StoreCall {
  /**
   * Aborts when the operation has failed for its caller. From then on, the store must not send anything to the backend, and the operation
   * must reject with any error. Pass the signal to the client, or call `signal.throwIfAborted()` before each step that sends something.
   */
  readonly signal: AbortSignal;
}

/**
 * One backend. A store handles fields and expiry. It knows nothing about Astro, cookies, session ids or secrets: its keys are already
 * prefixed and hashed.
 *
 * Concurrency: methods may be called at any time, also concurrently for the same key. Each is one atomic step, so concurrent calls have the
 * same effect as the same calls one after another. With `atomic: false`, this is required only within one process.
 *
 * Errors: a method rejects only when the backend failed. A missing, expired or destroyed record is a result and not an error, and a failure
 * is never reported as a missing record. When the backend cannot be reached and nothing was sent, throw `createError(driver, 'unavailable',
 * ...)`: the next operations then fail immediately, until the backend answers again. Throw any other error as the client throws it.
 *
 * Expiry: the expiry of a record is the latest expiry of its fields. A field without its own expiry counts as `defaultTtlMs` after
 * the last write. The record expires at this time or at its idle limit, whichever comes first, and never earlier. Lifetimes are
 * whole milliseconds, of any length. A record may have no fields that count; it then lives for `lifetimeMs`.
 */
export interface SessionStore {
  /** Whether changes of one key are atomic across processes. */
  readonly atomic: boolean;

  /**
   * Resolves to all fields of the live record, including fields whose own expiry has passed; to null when the record is missing, expired or
   * destroyed.
   *
   * `extendIdleMs` (a touch) also sets the idle limit of a live record to that many milliseconds from now, in the same step. The new limit
   * may be earlier than the old one. A touch changes nothing else: the expiry stays, and no record is created. A store with `atomic:
   * false` rejects a touch.
   */
  read(key: string, call: StoreCall & { extendIdleMs?: number | undefined }): Promise<Fields | null>;

  /** Applies one change, completely or not at all, in the order that `Change` documents. */
  patch(key: string, change: Change, call: StoreCall): Promise<PatchResult>;

  /**
   * Removes the record and leaves a tombstone. For `tombstoneMs` from now, the key rejects every patch and reads as null; afterwards the
   * key is free again. Resolves to the last contents of the record: to null when there was no live record, to 'destroyed' when the key
   * already had a tombstone. Destroying a missing or destroyed key is not an error. Destroying a key twice never shortens its tombstone:
   * the later end wins.
   */
  destroy(key: string, tombstoneMs: number, call: StoreCall): Promise<Fields | 'destroyed' | null>;

  /**
   * Only for backends that do not expire records themselves: removes up to `limit` expired records, and resolves to their number. It keeps
   * live records, and tombstones that have not ended. A writer may still write to an expired record for a minute. So the sweep must check
   * that the record is expired and remove it in one atomic step, or leave expired records alone for more than a minute.
   */
  sweep?(limit: number, call: StoreCall): Promise<number>;

  /** Closes connections. The store is not used afterwards. */
  close?(): Promise<void>;
}
