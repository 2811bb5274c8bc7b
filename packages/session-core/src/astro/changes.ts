import type { SessionFields } from '../codec/field-codec.ts';
import { bodyOf, expiryOf, isExpired } from '../codec/field.ts';
import { type Flat, isObject, createComparison } from '../codec/flat.ts';
import { decodePayload, encodeAt, type Entry, notAPayload } from '../codec/payload.ts';
import type { Fields } from '../contract/store.ts';
import type { Moment } from '../platform/clock.ts';
import { type Layout, MARK, ROOT } from './layout.ts';

/** What a request has read of a session. */
export interface Snapshot {
  /** The session id. */
  readonly id: string;
  /** When the read was sent. The backend answered from its state at that time or later. */
  readonly at: Moment;
  /** Every readable key of the record, including expired ones. */
  readonly keys: ReadonlyMap<string, { readonly expires: number | undefined }>;
}

/** What one read has returned. */
export interface ReadResult extends Snapshot {
  /** Returns a function that tells whether the value at a position of a payload is the one that the read returned for a key. */
  comparisonWith(flat: Flat): (key: string, position: number) => boolean;
}

/** The result of reading a layout. */
export function resultOf(driver: string, id: string, at: Moment, { flat: own, slots }: Layout): ReadResult {
  return {
    id,
    at,
    keys: slots,
    comparisonWith(flat) {
      const isSame = createComparison(flat, own);
      return (key, position) => {
        const slot = slots.get(key);
        if (slot?.dataAt === undefined) return false;
        return isSame(position, slot.dataAt) ?? encodeAt(driver, flat, position) === bodyOf(slot.field);
      };
    },
  };
}

/**
 * The payload for a request: a copy of the layout with a mark.
 *
 * Astro keeps the mark of each entry that it loads, and `session.set()` creates a new entry. So when Astro saves the session, the marks show
 * which entries the request has not set, and what it had read.
 *
 * @param mark a string by which `MarkResolver` finds the read result, or an array that contains it.
 */
export function payloadOf(layout: Layout, mark: unknown): Flat {
  const flat = layout.flat.slice();
  flat[ROOT] = layout.root;
  flat[MARK] = mark;
  return flat;
}

/**
 * The payload for a request that cannot be recognized when it saves the session. Its mark contains the read result: the driver's nonce, the
 * session id, the time by two clocks, and each key with its expiry and a digest of its value.
 */
export function selfContainedPayloadOf(layout: Layout, nonce: string, id: string, at: Moment): Flat {
  const mark: number[] = [];
  const flat = payloadOf(layout, mark);
  const add = (node: unknown): void => void mark.push(flat.push(node) - 1);
  [nonce, id, at.wall, at.monotonic].forEach(add);
  for (const { keyAt, expiresAt, dataAt, field } of layout.slots.values()) {
    mark.push(keyAt, expiresAt);
    // Only objects can be changed in place.
    if (dataAt !== undefined && isObject(flat, dataAt)) add(digest(bodyOf(field)));
    else mark.push(-1);
  }
  return flat;
}

/** The read result in a mark of `selfContainedPayloadOf`; undefined when the mark is of another driver. */
function resultIn(
  driver: string,
  flat: Flat,
  mark: readonly unknown[],
  isOwn: MarkResolver['isOwn'],
): ReadResult | undefined {
  const [nonceAt, idAt, wallAt, monotonicAt, ...rest] = mark as number[];
  if (!isOwn(flat[nonceAt!])) return undefined;
  const [id, wall, monotonic] = [flat[idAt!], flat[wallAt!], flat[monotonicAt!]];
  if (typeof id !== 'string' || typeof wall !== 'number' || typeof monotonic !== 'number') throw notAPayload(driver);
  const keys = new Map<string, { expires: number | undefined; digest: unknown }>();
  for (let index = 0; index < rest.length; index += 3) {
    const [key, expires] = [flat[rest[index]!], flat[rest[index + 1]!]];
    if (typeof key !== 'string' || !['number', 'undefined'].includes(typeof expires)) throw notAPayload(driver);
    keys.set(key, { expires: expires as number | undefined, digest: flat[rest[index + 2]!] });
  }
  return {
    id,
    at: { wall, monotonic },
    keys,
    comparisonWith: (payload) => (key, position) =>
      keys.get(key)?.digest === digest(encodeAt(driver, payload, position)),
  };
}

/** An entry of a session that Astro saves. */
export interface SavedEntry extends Entry {
  /** Whether the request set this entry, or changed its value in place. */
  modified: boolean;
}

/** How the driver finds out what a mark stands for. */
export interface MarkResolver {
  /** Whether a nonce is the driver's own. The marks of other drivers are not known. */
  isOwn(nonce: unknown): boolean;
  /** The read result of a mark that is a string; undefined when it is not known. */
  find(mark: string): ReadResult | undefined;
  /** Called for a mark that is not known. The entries that have it count as modified. */
  onUnknown(): void;
}

/**
 * Decodes a session that Astro saves, and finds out what the request changed.
 *
 * @returns the entries by session key, and one snapshot for each session that the marks name. Several reads of one session are merged.
 * @throws an error with the code `invalid-data` when the payload is not a session, or when a session key cannot be stored.
 */
export function savedSession(
  driver: string,
  payload: unknown,
  { isOwn, find, onUnknown }: MarkResolver,
): { entries: Map<string, SavedEntry>; snapshots: Snapshot[] } {
  const { flat, entries } = decodePayload(driver, payload);
  /** By position of the mark. */
  const reads = new Map<
    number,
    { result: ReadResult; isUnchanged(key: string, position: number): boolean } | undefined
  >();
  const readAt = (position: number) => {
    if (reads.has(position)) return reads.get(position);
    const mark = flat[position];
    const result = Array.isArray(mark)
      ? resultIn(driver, flat, mark, isOwn)
      : typeof mark === 'string'
        ? find(mark)
        : undefined;
    if (!result) onUnknown();
    const read = result && { result, isUnchanged: result.comparisonWith(flat) };
    reads.set(position, read);
    return read;
  };

  const saved = new Map<string, SavedEntry>();
  for (const [key, entry] of entries) {
    const { markAt, dataAt } = entry;
    const read = markAt === undefined ? undefined : readAt(markAt);
    saved.set(key, { ...entry, modified: !read || (isObject(flat, dataAt) && !read.isUnchanged(key, dataAt)) });
  }
  const snapshots = new Map<string, Snapshot>();
  for (const read of reads.values()) {
    if (read) snapshots.set(read.result.id, unite(snapshots.get(read.result.id), read.result));
  }
  return { entries: saved, snapshots: [...snapshots.values()] };
}

/** Merges the snapshots of two reads of one session: all keys, each with its later expiry, and the time of the earlier read. */
export function unite(first: Snapshot | undefined, second: Snapshot): Snapshot {
  if (!first) return second;
  const at = first.at.monotonic < second.at.monotonic ? first.at : second.at;
  if (first.keys === second.keys) return { ...first, at };
  const keys = new Map(first.keys);
  for (const [key, { expires }] of second.keys) {
    const other = keys.has(key) ? keys.get(key)!.expires : -Infinity;
    keys.set(key, { expires: expires === undefined || other === undefined ? undefined : Math.max(expires, other) });
  }
  return { id: first.id, at, keys };
}

/** The part of a change that a request made. See `SessionChange`. */
export interface Diff {
  set: Fields;
  unset: string[];
  purge: string[];
  untouched: (number | undefined)[];
}

/** The changes that a request made to the session that it had read. Without a snapshot, all modified entries count as new. */
export function diff(entries: Map<string, SavedEntry>, snapshot: Snapshot | undefined): Diff {
  const now = Date.now();
  const unset: string[] = [];
  const purge: string[] = [];
  for (const [key, { expires }] of snapshot?.keys ?? []) {
    if (entries.has(key)) continue;
    // Astro leaves out an expired entry. Another request may have renewed it, so remove it only if the stored entry has expired as well.
    if (isExpired(expires, now)) purge.push(key);
    else unset.push(key);
  }
  const untouched = [...entries.values()].filter((entry) => !entry.modified).map((entry) => entry.expires);
  return { set: encodeAll(entries, (entry) => entry.modified), unset, purge, untouched };
}

/**
 * The fields of a session under its new id.
 *
 * @param contents the last contents of the old record. Keys that this request did not change are taken from here, so concurrent changes are
 *   not lost. `destroyed` or `stale`: only the keys that this request set are kept, because the session was destroyed or may have been.
 *   `lost`: the backend lost the record, so all keys that this request knows are kept.
 */
export function afterRegenerate(
  entries: Map<string, SavedEntry>,
  snapshot: Snapshot,
  contents: SessionFields | 'lost' | 'destroyed' | 'stale',
): Fields {
  const now = Date.now();
  const set = encodeAll(entries, (entry) => entry.modified || contents === 'lost');
  if (typeof contents === 'string') return set;
  for (const [key, field] of contents) {
    const read = snapshot.keys.get(key);
    const deleted = read && !entries.has(key) && !isExpired(read.expires, now);
    if (!set.has(key) && !deleted && !isExpired(expiryOf(field), now)) set.set(key, field);
  }
  return set;
}

/** The encoded fields of some entries. */
export function encodeAll(entries: Map<string, SavedEntry>, which: (entry: SavedEntry) => boolean): Fields {
  const fields: Fields = new Map();
  for (const [key, entry] of entries) if (which(entry)) fields.set(key, entry.encoded());
  return fields;
}

/** A 53-bit hash of a string, to detect that a value was changed in place (cyrb53, public domain). Not cryptographic. */
function digest(text: string): number {
  let high = 0xdeadbeef;
  let low = 0x41c6ce57;
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index);
    high = Math.imul(high ^ unit, 2654435761);
    low = Math.imul(low ^ unit, 1597334677);
  }
  high = Math.imul(high ^ (high >>> 16), 2246822507) ^ Math.imul(low ^ (low >>> 13), 3266489909);
  low = Math.imul(low ^ (low >>> 16), 2246822507) ^ Math.imul(high ^ (high >>> 13), 3266489909);
  return 4294967296 * (2097151 & low) + (high >>> 0);
}
