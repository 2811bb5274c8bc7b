/**
 * The fields of one record at rest: session key to encoded value (`codec/field.ts` says how). Always a Map, because `__proto__` is a
 * legal session key. A name is never empty: a store may keep what it needs itself under the empty name. A store treats names and
 * values as opaque text, well-formed and without NUL, except for the expiry in front of a value (`expiryOf`).
 */
export type Fields = Map<string, string>;

/**
 * - `applied`: the whole change is stored.
 * - `destroyed`: the key was destroyed and refuses changes; nothing is stored.
 * - `missing`: `mustExist` was asked and there is no live record; nothing is stored.
 * - `conflict`: a field in `expect` did not hold the expected value, or `mustBeNew` was asked and there is a live record; nothing is
 *   stored.
 */
export type PatchResult = 'applied' | 'destroyed' | 'missing' | 'conflict';

/** How long a session lives of which nobody says how long. */
export const DEFAULT_TTL_SECONDS: number = 30 * 24 * 60 * 60;

/** How long something lives, in whole milliseconds from now by the backend's own clock, or for ever. */
export type Lifetime = number | 'never';

/**
 * One change of one record. What it means, in this order:
 *
 * 1. A key that is destroyed answers `destroyed`. A record that has expired counts as missing, whether or not it still lies there.
 * 2. The conditions, in this order: `mustExist`, `mustBeNew`, `expect`. When one does not hold, nothing at all changes: no field, no
 *    lifetime, no idle limit.
 * 3. `unset` removes.
 * 4. `purge` removes what has expired by the writer's clock.
 * 5. `ifAbsent` writes where there is no such field now: also what 3 and 4 have removed.
 * 6. `set` writes in any case: also what 3 has removed and what 5 has written.
 * 7. The hard deadline is computed anew, from all fields that are there then. It may come sooner than before.
 * 8. The idle limit is `idleMs` from now. A change without `idleMs` ends the limit that there was.
 *
 * Lifetimes are relative, because an app's clock and a backend's clock may be hours apart. A store leaves the change that it is given as it
 * is.
 */
export interface Change {
  /** Written, whatever the record holds. */
  set: Fields;
  /** Written where the record has no such field: how a record that was evicted is restored. */
  ifAbsent?: Fields;
  /** Removed. A name that is not there is no error. */
  unset: readonly string[];
  /** Removed if the expiry stored with the field lies before `now`; another request may have renewed it. */
  purge?: readonly string[];
  /** Applied only if each of these fields holds exactly this encoded value; null stands for no such field. */
  expect?: ReadonlyMap<string, string | null>;
  /** Applied only if there is a live record. */
  mustExist?: boolean;
  /** Applied only if there is none. Never together with `mustExist`. */
  mustBeNew?: boolean;
  /** How long the longest-lived field that the writer knows of has left: the fields set, and those that it read. */
  lifetimeMs: Lifetime;
  /** How long a field without an expiry of its own keeps the record alive after this write. Absent: for ever. */
  defaultTtlMs?: number;
  /** The record goes after this long without a write or a touch, even before its hard deadline. Absent: it does not. */
  idleMs?: number;
  /** The writer's clock, in epoch milliseconds: what the expiries stored with fields are compared with. */
  now: number;
}

export interface StoreCall {
  /**
   * Aborts when the caller has been told that the operation failed. After that nothing may be sent to the backend, and the call rejects,
   * with whatever reason. Hand it to the client, or call `signal.throwIfAborted()` before each step that sends something.
   */
  readonly signal: AbortSignal;
}

/**
 * One backend. A store knows fields and expiry; it knows nothing of Astro, cookies, ids or secrets: keys reach it named and hashed.
 *
 * Every method may be called at any time, concurrently, for the same key, and is one step: what many do at once is as if one had done it
 * after the other.
 *
 * A method rejects only when the backend failed: a missing, expired or destroyed record is an answer, never an error, and a failure is never
 * an answer. Where the backend cannot be reached and nothing was sent, the error is `createError(driver, 'unavailable', ...)`: the next
 * operations fail at once then, until the backend answers again. Any other error may be thrown as the client throws it.
 *
 * The hard deadline of a record is the latest expiry among its fields, where a field without one counts as `defaultTtlMs` after the last
 * write. The record goes at the hard deadline or at its idle limit, whichever comes first, and never sooner. Lifetimes are whole
 * milliseconds, of any length. A record without fields is a record: it lives for `lifetimeMs`.
 */
export interface SessionStore {
  /** Whether changes of one key are atomic with respect to each other, across processes. */
  readonly atomic: boolean;

  /**
   * The live record, or null when it is missing, expired or destroyed. All of its fields: also those whose own expiry has passed.
   *
   * With `extendIdleMs` (a touch) the idle limit of a live record is set to `extendIdleMs` from now, in the same step. It may come sooner than
   * before; the hard deadline stays as it is. A touch changes nothing else, and makes no record where there is none. A store that is not
   * atomic rejects it.
   */
  read(key: string, call: StoreCall & { extendIdleMs?: number | undefined }): Promise<Fields | null>;

  /** Applies one change: all of it or nothing (`Change` says in which order). */
  patch(key: string, change: Change, call: StoreCall): Promise<PatchResult>;

  /**
   * Removes the record and returns what it last held: null when there was no live record, 'destroyed' when the key was destroyed already.
   * For `tombstoneMs` from now the key refuses every patch and reads as null, however long the record would have lived; then it is as if
   * nothing had ever been there. Destroying a missing or a destroyed key is no error. A second removal never ends or shortens the first: the
   * later of the two ends counts.
   */
  destroy(key: string, tombstoneMs: number, call: StoreCall): Promise<Fields | 'destroyed' | null>;

  /**
   * Only for backends that do not expire records themselves: removes up to `limit` records that have expired, and returns how many. Living
   * records stay, and so do tombstones until they end. A record may be written anew for a minute after it has expired: the sweep removes it
   * on the condition that it still is expired, in one step, or leaves it for longer than that.
   */
  sweep?(limit: number, call: StoreCall): Promise<number>;

  /** Releases connections. The store is not used afterwards. */
  close?(): Promise<void>;
}
