import { createError } from '../contract/errors.ts';
import type { Fields } from '../contract/store.ts';
import { bodyOf, encodeField, expiryOf, isExpired, normalizeExpiry } from './field.ts';
import { extractValue, type Flat, insertValue } from './flat.ts';

/** A field in a flat array. */
export interface Place {
  /** The position of the session key. */
  readonly keyAt: number;
  /** The position of the expiry; -1 when the field has no expiry of its own. */
  readonly expiresAt: number;
  /** The position of the value; undefined when the field has expired. */
  readonly dataAt: number | undefined;
  /** The position of the entry that Astro gets; undefined when the field has expired. */
  readonly entryAt: number | undefined;
}

/**
 * Appends a field to a flat array, as an entry of Astro's payload: `{ data, expires }`.
 *
 * @param now the time, in epoch milliseconds. Of a field that has expired, only the key and the expiry are appended.
 * @param markAt the position of a mark, which each entry then refers to. Astro keeps this property of an entry that it loads.
 * @returns undefined when the field is corrupt. Nothing is appended then.
 */
export function insertField(flat: Flat, key: string, field: string, now: number, markAt?: number): Place | undefined {
  const push = (node: unknown): number => flat.push(node) - 1;
  const expires = expiryOf(field);
  const isOver = isExpired(expires, now);
  const dataAt = isOver ? undefined : insertValue(flat, bodyOf(field));
  if (!isOver && dataAt === undefined) return undefined;
  const keyAt = push(key);
  const expiresAt = expires === undefined ? -1 : push(expires);
  if (dataAt === undefined) return { keyAt, expiresAt, dataAt, entryAt: undefined };
  const entry = { data: dataAt, expires: expiresAt };
  return { keyAt, expiresAt, dataAt, entryAt: push(markAt === undefined ? entry : { ...entry, [MARK]: markAt }) };
}

/** The property of an entry that refers to its mark. An identifier, because devalue handles these fastest. */
const MARK = '_';

/**
 * Encodes the fields of a session as Astro's payload: a flat Map of session key to entry. Expired fields are left out.
 *
 * @param now the time, in epoch milliseconds.
 * @param onCorrupt called for each field that is corrupt and was left out.
 */
export function encodePayload(
  fields: Iterable<[key: string, field: string]>,
  now: number,
  onCorrupt: () => void,
): Flat {
  const root: unknown[] = ['Map'];
  const flat: Flat = [root];
  for (const [key, field] of fields) {
    const place = insertField(flat, key, field, now);
    if (!place) onCorrupt();
    else if (place.entryAt !== undefined) root.push(place.keyAt, place.entryAt);
  }
  return flat;
}

/** An entry of a session that Astro saves. */
export interface Entry {
  /** The expiry in epoch milliseconds; undefined when the entry has none of its own. */
  expires: number | undefined;
  /** The position of the value. */
  dataAt: number;
  /** The position of the mark; undefined when the entry has none. */
  markAt: number | undefined;
  /**
   * The encoded field for the store.
   *
   * @throws an error with the code `invalid-data` when the value cannot be stored.
   */
  encoded(): string;
}

/**
 * Decodes a payload that Astro saves. It does not decode the values.
 *
 * @param onCorrupt called for each entry whose key is not a string, or is empty; the entry is left out. Without it, such an entry throws.
 * @throws an error with the code `invalid-data` when the payload is not a session, or when a session key cannot be stored.
 */
export function decodePayload(
  driver: string,
  payload: unknown,
  onCorrupt?: () => void,
): { flat: Flat; entries: Map<string, Entry> } {
  const flat = parse(driver, payload);
  const [, ...pairs] = flat[0] as unknown[] as [string, ...number[]];
  const entries = new Map<string, Entry>();
  const at = (position: unknown): unknown => flat[position as number];

  for (let index = 0; index < pairs.length; index += 2) {
    const key = at(pairs[index]);
    const entry = at(pairs[index + 1]) as Record<string, number> | undefined;
    if (typeof key !== 'string' || key === '') {
      if (onCorrupt) {
        onCorrupt();
        continue;
      }
      const kind = key === '' ? 'an empty string' : typeof key;
      throw createError(
        driver,
        'invalid-data',
        `Session keys must be non-empty strings; got ${kind}. Nothing was stored.`,
      );
    }
    const dataAt = entry?.['data'];
    if (typeof dataAt !== 'number') throw notAPayload(driver);
    const expires = normalizeExpiry(PAST_EXPIRIES.has(entry!['expires'] ?? -1) ? -Infinity : at(entry!['expires']));
    const encoded = (): string => encodeField(expires, encodeAt(driver, flat, dataAt));
    entries.set(key, { expires, dataAt, markAt: entry![MARK], encoded });
  }
  return { flat, entries };
}

/** The fields of a payload that another driver stored. See `decodePayload` for `onCorrupt` and for what it throws. */
export function fieldsOfPayload(driver: string, payload: unknown, onCorrupt?: () => void): Fields {
  const fields: Fields = new Map();
  for (const [key, entry] of decodePayload(driver, payload, onCorrupt).entries) fields.set(key, entry.encoded());
  return fields;
}

/** devalue's constants for -Infinity and -0, which are expiries in the past. */
const PAST_EXPIRIES = new Set([-5, -6]);

/**
 * The canonical encoding of a value in a payload.
 *
 * @throws an error with the code `invalid-data` when the value cannot be stored.
 */
export function encodeAt(driver: string, flat: Flat, position: number): string {
  try {
    return extractValue(flat, position);
  } catch {
    // The encoder's own message may quote the value.
    throw createError(driver, 'invalid-data', 'A value is of a kind that cannot be stored here. Nothing was stored.');
  }
}

function parse(driver: string, payload: unknown): Flat {
  let flat = payload;
  try {
    if (typeof payload === 'string') flat = JSON.parse(payload);
  } catch {
    // The parser's own message quotes the payload, so it is not passed on: `notAPayload` is thrown below.
  }
  const root = Array.isArray(flat) ? flat[0] : undefined;
  if (!Array.isArray(root) || root[0] !== 'Map' || root.length % 2 !== 1) throw notAPayload(driver);
  return flat as Flat;
}

/** The error for a payload that is not a session. */
export function notAPayload(driver: string): Error {
  return createError(
    driver,
    'invalid-data',
    'This is not a session as Astro writes it: expected a devalue string of a Map of entries. Nothing was stored.',
  );
}
