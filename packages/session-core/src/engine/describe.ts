import { expiryOf, isExpired } from '../codec/field.ts';
import type { SessionFields } from '../codec/field-codec.ts';
import type { SessionDriver } from '../contract/driver.ts';
import { engineOf } from './engine-of.ts';
import type { ExpiryPolicy } from './record.ts';
import { sha256Of } from './session-id.ts';

/** What is known about a stored session, without its data. Safe to show and to log. */
export interface SessionDescription {
  /** Identifies the session. Nobody can use it to open the session, and it is no part of the key in the backend. */
  handle: string;
  /**
   * When the session was created, by the server's clock. A new id does not change it, except in one case: if a request of `Astro.session`
   * regenerates the session and also sets or deletes all of its keys, it counts as a new session. Null if it is unknown: the session was
   * migrated from another driver, or restored after the backend had lost it.
   */
  created: Date | null;
  /**
   * When the session expires if nobody uses it anymore. Null if it never expires, and if only the backend knows: if a value has no `ttl` of
   * its own and the driver's `ttl` counts from the last write.
   */
  expires: Date | null;
}

/**
 * Describes a stored session. Reads it once, and so extends its idle limit if the driver has one.
 *
 * @param id the session id.
 * @returns the description; null when there is no such session, or the id is invalid.
 * @throws a TypeError when the driver is not a Coatcheck driver, and a `SessionDriverError` when the backend failed.
 * @example
 * const session = await describeSession(driver, id);
 */
export async function describeSession(driver: SessionDriver, id: string): Promise<SessionDescription | null> {
  const engine = engineOf(driver);
  if (!engine) throw new TypeError('describeSession() needs a Coatcheck driver.');
  const fields = await engine.read(id);
  return fields && descriptionOf(id, fields, engine.expiry);
}

/** Describes the session with these contents. */
export async function descriptionOf(
  id: string,
  fields: SessionFields,
  expiry: ExpiryPolicy,
): Promise<SessionDescription> {
  // In a namespace of its own, so that the handle is not the hash in the backend's key.
  const hash = await sha256Of(`handle:${id}`);
  const [, created] = /^-:(\d{1,15})$/.exec(fields.created ?? '') ?? [];
  return {
    handle: hash.slice(0, HANDLE_LENGTH),
    created: created === undefined ? null : new Date(Number(created)),
    expires: expiryIn(fields, expiry, Date.now()),
  };
}

/** The length of a handle, in characters of 6 bits: long enough that two sessions never have the same. */
const HANDLE_LENGTH = 22;

function expiryIn(fields: Iterable<[string, string]>, { ttlMs, idleMs }: ExpiryPolicy, now: number): Date | null {
  let end = -Infinity;
  for (const [, field] of fields) {
    const expires = expiryOf(field);
    // NaN, which stays NaN from here on: only the backend knows when the session was last written.
    if (!isExpired(expires, now)) end = Math.max(end, expires ?? (ttlMs === undefined ? Infinity : NaN));
  }
  if (Number.isNaN(end) || end === -Infinity) return null;
  const earliest = Math.min(end, now + (idleMs ?? Infinity));
  return earliest === Infinity ? null : new Date(earliest);
}
