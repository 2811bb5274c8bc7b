import { createError } from '../contract/errors.ts';
import type { Fields } from '../contract/store.ts';
import type { Moment } from '../platform/clock.ts';
import { bodyOf, encodeField, expiryOf, isExpired, normalizeExpiry } from './field.ts';

import { insertValue, digest, extractValue, type Flat, isObject } from './flat.ts';

/** What a read returned to a request. */
export interface Snapshot {
  /** The session id. */
  id: string;
  /** When the read was sent. The backend answered from its state at that time or later. */
  at: Moment;
  /** Every readable key of the record with its expiry, including expired ones. Undefined: the key does not expire by itself. */
  keys: Map<string, number | undefined>;
}

/** An entry of a session that Astro saves. */
export interface Entry {
  /** The expiry in epoch milliseconds; undefined when the entry has none of its own. */
  expires: number | undefined;
  /** Whether the request set this entry, or changed its value in place. */
  modified: boolean;
  /** The encoded field for the store. */
  encoded(): string;
}

/**
 * Encodes the fields of a record as Astro's payload: a flat Map of session key to entry. Astro keeps every property of an entry that it
 * loads, and `session.set()` creates a new entry. So extra properties (marks) on each entry show later what the request changed:
 *
 * - `~`: one array for the whole read, with the driver's nonce, the session id, the time by two clocks, and every key with its expiry.
 * - `#`: a digest of the value, for values that can be changed in place.
 *
 * A corrupt field is left out and reported to `onCorrupt`. It is not part of the snapshot either, so no later write unsets it.
 *
 * @param now the time, in epoch milliseconds. Expired fields become part of the snapshot, but not of the payload.
 * @param mark the nonce of the driver, and the snapshot to fill with keys. Without it, entries get no marks.
 */
export function encodePayload(
  fields: Iterable<[key: string, field: string]>,
  now: number,
  onCorrupt: () => void,
  mark?: { nonce: string; snapshot: Snapshot },
): Flat {
  const root: unknown[] = ['Map'];
  const flat: Flat = [root];
  const push = (node: unknown): number => flat.push(node) - 1;
  const markNode: number[] = [];
  const markAt = mark && push(markNode);
  if (mark) {
    const { id, at } = mark.snapshot;
    markNode.push(push(mark.nonce), push(id), push(at.wall), push(at.monotonic));
  }

  for (const [key, field] of fields) {
    const expires = expiryOf(field);
    const expired = isExpired(expires, now);
    const body = expired ? '' : bodyOf(field);
    const data = expired ? undefined : insertValue(flat, body);
    if (!expired && data === undefined) {
      onCorrupt();
      continue;
    }
    const keyAt = push(key);
    const expiresAt = expires === undefined ? -1 : push(expires);
    mark?.snapshot.keys.set(key, expires);
    markNode.push(keyAt, expiresAt);
    if (data === undefined) continue;
    const entry: Record<string, number> = { data, expires: expiresAt };
    if (markAt !== undefined) entry['~'] = markAt;
    if (markAt !== undefined && isObject(flat, data)) entry['#'] = push(digest(body));
    root.push(keyAt, push(entry));
  }
  return flat;
}

/**
 * Decodes a payload that Astro saves. It does not decode the values.
 *
 * @param nonce the nonce of the driver. Marks with another nonce are ignored, so entries with them count as modified.
 * @param onCorrupt called for each entry whose key is not a string, or is empty; the entry is left out. Without it, such an entry throws.
 * @returns the entries by session key, and one snapshot for each session that the marks name. Several reads of one session are merged.
 * @throws an error with the code `invalid-data` when the payload is not a session, or when a session key cannot be stored. `encoded()` of
 *   an entry throws the same error when its value cannot be stored.
 */
export function decodePayload(
  driver: string,
  payload: unknown,
  nonce: string,
  onCorrupt?: () => void,
): { entries: Map<string, Entry>; snapshots: Snapshot[] } {
  const flat = parse(driver, payload);
  const [, ...pairs] = flat[0] as unknown[] as [string, ...number[]];
  const entries = new Map<string, Entry>();
  const at = (position: unknown): unknown => flat[position as number];
  const marks = new Set<number>();

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
    if (typeof entry?.['data'] !== 'number') throw notAPayload(driver);
    const data = entry['data'];
    const mark = at(entry['~']);
    const isMarked = Array.isArray(mark) && at(mark[0]) === nonce;
    if (isMarked) marks.add(entry['~']!);
    let body: string | undefined;
    const encodeBody = (): string => (body ??= encode(driver, flat, data));
    const expires = normalizeExpiry(PAST_EXPIRIES.has(entry['expires'] ?? -1) ? -Infinity : at(entry['expires']));
    entries.set(key, {
      expires,
      modified: !isMarked || (isObject(flat, data) && digest(encodeBody()) !== at(entry['#'])),
      encoded: () => encodeField(expires, encodeBody()),
    });
  }
  const snapshots = new Map<string, Snapshot>();
  for (const markAt of marks) {
    const read = snapshotOf(driver, flat, flat[markAt] as number[]);
    snapshots.set(read.id, unite(snapshots.get(read.id), read));
  }
  return { entries, snapshots: [...snapshots.values()] };
}

/** Merges the snapshots of two reads of one session: all keys, each with its later expiry, and the time of the earlier read. */
export function unite(first: Snapshot | undefined, second: Snapshot): Snapshot {
  if (!first) return second;
  const keys = new Map(first.keys);
  for (const [key, expires] of second.keys) {
    const other = keys.has(key) ? keys.get(key) : -Infinity;
    keys.set(key, expires === undefined || other === undefined ? undefined : Math.max(expires, other));
  }
  return { id: first.id, at: first.at.monotonic < second.at.monotonic ? first.at : second.at, keys };
}

/** The fields of a payload that another driver stored. See `decodePayload` for `onCorrupt` and for what it throws. */
export function fieldsOfPayload(driver: string, payload: unknown, onCorrupt?: () => void): Fields {
  const fields: Fields = new Map();
  for (const [key, entry] of decodePayload(driver, payload, '', onCorrupt).entries) fields.set(key, entry.encoded());
  return fields;
}

/** devalue's constants for -Infinity and -0, which are expiries in the past. */
const PAST_EXPIRIES = new Set([-5, -6]);

function encode(driver: string, flat: Flat, position: number): string {
  try {
    return extractValue(flat, position);
  } catch {
    // The encoder's own message may quote the value.
    throw createError(driver, 'invalid-data', 'A value is of a kind that cannot be stored here. Nothing was stored.');
  }
}

function snapshotOf(driver: string, flat: Flat, [, idAt, wallAt, monotonicAt, ...pairs]: number[]): Snapshot {
  const [id, wall, monotonic] = [flat[idAt!], flat[wallAt!], flat[monotonicAt!]];
  if (typeof id !== 'string' || typeof wall !== 'number' || typeof monotonic !== 'number') throw notAPayload(driver);
  const keys = new Map<string, number | undefined>();
  for (let index = 0; index < pairs.length; index += 2) {
    const [key, expires] = [flat[pairs[index]!], flat[pairs[index + 1]!]];
    if (typeof key !== 'string' || !['number', 'undefined'].includes(typeof expires)) throw notAPayload(driver);
    keys.set(key, expires as number | undefined);
  }
  return { id, at: { wall, monotonic }, keys };
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

function notAPayload(driver: string): Error {
  return createError(
    driver,
    'invalid-data',
    'This is not a session as Astro writes it: expected a devalue string of a Map of entries. Nothing was stored.',
  );
}
