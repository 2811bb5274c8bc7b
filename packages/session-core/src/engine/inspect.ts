import { bodyOf, expiryOf, isExpired } from '../codec/field.ts';
import type { SessionDriver } from '../contract/driver.ts';
import { notLoaded } from '../contract/errors.ts';
import { descriptionOf, type SessionDescription } from './describe.ts';
import { engineOf } from './engine-of.ts';

/** A stored session with its values. Not safe to log. */
export interface InspectedSession extends SessionDescription {
  entries: StoredEntry[];
}

/** One value of a stored session. */
export interface StoredEntry {
  key: string;
  /** Decodes the value. Throws an error when it is corrupt. */
  value(): unknown;
  /** The size of the encoded value, in bytes. */
  bytes: number;
  /** When the value expires. Null if it has no expiry of its own: it expires with the session. */
  expires: Date | null;
}

/**
 * Describes a stored session and its values, for developer tools. Reads it once, and so extends its idle limit if the driver has one.
 *
 * @param id the session id.
 * @returns null when there is no such session, or the id is invalid.
 * @throws a TypeError when the driver is not a Coatcheck driver, and a `SessionDriverError` when the backend failed.
 * @example
 * const session = await inspectSession(driver, id);
 */
export async function inspectSession(driver: SessionDriver, id: string): Promise<InspectedSession | null> {
  const engine = engineOf(driver);
  if (!engine) throw new TypeError('inspectSession() needs a Coatcheck driver.');
  const fields = await engine.read(id);
  if (!fields) return null;
  // Loaded on demand, because drivers do not need it.
  const { decodeValue } = await import('../codec/value.ts').catch((error: unknown) => {
    throw notLoaded(engine.driver, error);
  });
  const now = Date.now();
  const entries: StoredEntry[] = [];
  for (const [key, field] of fields) {
    const expires = expiryOf(field);
    if (isExpired(expires, now)) continue;
    const body = bodyOf(field);
    entries.push({
      key,
      value: () => decodeValue(body),
      bytes: new TextEncoder().encode(body).byteLength,
      expires: expires === undefined ? null : new Date(expires),
    });
  }
  return { ...(await descriptionOf(id, fields, engine.expiry)), entries };
}
