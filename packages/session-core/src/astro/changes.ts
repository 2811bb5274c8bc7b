import type { SessionFields } from '../codec/field-codec.ts';
import { bodyOf, expiryOf, isExpired } from '../codec/field.ts';
import { type Flat, isObject, createComparison } from '../codec/flat.ts';
import { decodePayload, encodeAt, type Entry } from '../codec/payload.ts';
import type { Fields } from '../contract/store.ts';
import type { SessionChange } from '../engine/record.ts';
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

/** An entry of a session that Astro saves. */
export interface SavedEntry extends Entry {
  /** Whether the request set this entry, or changed its value in place. */
  modified: boolean;
}

/** How the driver finds out what a mark stands for. */
export interface MarkResolver {
  /** The read result of a mark; undefined when it is not known, as when another driver made the mark. */
  find(mark: unknown, flat: Flat): ReadResult | undefined;
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
  { find, onUnknown }: MarkResolver,
): { entries: Map<string, SavedEntry>; snapshots: Snapshot[] } {
  const { flat, entries } = decodePayload(driver, payload);
  /** By position of the mark. */
  const reads = new Map<
    number,
    { result: ReadResult; isUnchanged(key: string, position: number): boolean } | undefined
  >();
  const readAt = (position: number) => {
    if (reads.has(position)) return reads.get(position);
    const result = find(flat[position], flat);
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
 * The change that stores a session under its new id.
 *
 * @param contents the last contents of the old record. Keys that this request did not change are taken from here, so concurrent changes are
 *   not lost. `destroyed` or `stale`: only the keys that this request set are kept, because the session was destroyed or may have been.
 *   `lost`: the backend lost the record, so all keys that this request knows are kept.
 */
export function afterRegenerate(
  entries: Map<string, SavedEntry>,
  snapshot: Snapshot,
  contents: SessionFields | 'lost' | 'destroyed' | 'stale',
): Pick<SessionChange, 'set' | 'created'> {
  const now = Date.now();
  const set = encodeAll(entries, (entry) => entry.modified || contents === 'lost');
  if (typeof contents === 'string') return contents === 'lost' ? { set, created: null } : { set };
  for (const [key, field] of contents) {
    const read = snapshot.keys.get(key);
    const deleted = read && !entries.has(key) && !isExpired(read.expires, now);
    if (!set.has(key) && !deleted && !isExpired(expiryOf(field), now)) set.set(key, field);
  }
  return { set, created: contents.created ?? null };
}

/** The encoded fields of some entries. */
export function encodeAll(entries: Map<string, SavedEntry>, which: (entry: SavedEntry) => boolean): Fields {
  const fields: Fields = new Map();
  for (const [key, entry] of entries) if (which(entry)) fields.set(key, entry.encoded());
  return fields;
}
