import { expiryOf, isExpired } from '../codec/field.ts';
import type { Flat } from '../codec/flat.ts';
import { insertField, type Place } from '../codec/payload.ts';

/** A field of a session, and its place in the flat array of a layout. */
export interface Slot extends Place {
  /** The encoded field. */
  readonly field: string;
  /** The expiry in epoch milliseconds; undefined when the field has none of its own. */
  readonly expires: number | undefined;
  /** The number of nodes that the field has in the flat array. */
  readonly nodes: number;
  /** The estimated size of the field and its nodes, in bytes. */
  readonly bytes: number;
}

/**
 * The payload of a session, except for the root and the mark, which differ for each read. Parsing the fields is most of the work of a read,
 * so layouts are cached.
 */
export interface Layout {
  /**
   * The nodes. Later layouts of the same session append to this array. Nobody changes a node. The positions `ROOT` and `MARK` are empty.
   */
  readonly flat: Flat;
  /** The root: a Map of session key to entry. */
  readonly root: readonly unknown[];
  /** All readable fields of the record, including expired ones. */
  readonly slots: ReadonlyMap<string, Slot>;
  /** The number of nodes of these fields. The flat array may have more: those of fields that have changed since. */
  readonly nodes: number;
  /** The estimated size of these fields and their nodes, in bytes. */
  readonly bytes: number;
  /** The times, in epoch milliseconds, between which no field expires: later than `from`, and not later than `until`. */
  readonly from: number;
  readonly until: number;
}

/** The position of the root in a payload. */
export const ROOT = 0;
/** The position of the mark in a payload. */
export const MARK = 1;

/** Layouts by session id. Those that were not used for the longest time are evicted. */
export interface LayoutCache {
  /**
   * The layout of a session.
   *
   * @param now the time, in epoch milliseconds.
   * @param onCorrupt called for each field that is corrupt and was left out.
   */
  layoutOf(id: string, fields: Iterable<[string, string]>, now: number, onCorrupt: () => void): Layout;
  /** Removes the layout of a session. */
  forget(id: string): void;
}

/** The default size of a cache, in bytes. It is an estimate; the cache never keeps a layout that is larger than all of it. */
const MAX_BYTES = 16 * 1024 * 1024;

/**
 * Creates a cache of layouts.
 *
 * @param maxBytes the maximum size of all layouts, in bytes, as `sizeOf` estimates it.
 */
export function createLayoutCache(maxBytes: number = MAX_BYTES): LayoutCache {
  const layouts = new Map<string, { layout: Layout; bytes: number }>();
  let total = 0;

  const forget = (id: string): void => {
    total -= layouts.get(id)?.bytes ?? 0;
    layouts.delete(id);
  };

  return {
    layoutOf(id, fields, now, onCorrupt) {
      const cached = layouts.get(id);
      if (cached && isLayoutOf(cached.layout, fields, now)) {
        // The most recently used one goes last.
        layouts.delete(id);
        layouts.set(id, cached);
        return cached.layout;
      }
      forget(id);
      const layout = createLayout(cached?.layout, fields, now, onCorrupt);
      const bytes = sizeOf(layout);
      if (bytes > maxBytes) return layout;
      layouts.set(id, { layout, bytes });
      total += bytes;
      for (const oldest of layouts.keys()) {
        if (total <= maxBytes) break;
        forget(oldest);
      }
      return layout;
    },
    forget,
  };
}

/** Whether a layout was made from exactly these fields, and none of them has expired since. */
function isLayoutOf({ slots, from, until }: Layout, fields: Iterable<[string, string]>, now: number): boolean {
  if (now <= from || now > until) return false;
  let count = 0;
  for (const [key, field] of fields) {
    if (slots.get(key)?.field !== field) return false;
    count++;
  }
  return count === slots.size;
}

/** Creates the layout of some fields. Of an earlier layout of the session, it uses the fields that have not changed. */
function createLayout(
  earlier: Layout | undefined,
  fields: Iterable<[string, string]>,
  now: number,
  onCorrupt: () => void,
): Layout {
  const reused = earlier && !isMostlyGarbage(earlier) ? earlier : undefined;
  const flat: Flat = reused?.flat ?? [undefined, undefined];
  const root: unknown[] = ['Map'];
  const slots = new Map<string, Slot>();
  let nodes = 0;
  let bytes = 0;
  let from = -Infinity;
  let until = Infinity;
  for (const [key, field] of fields) {
    const expires = expiryOf(field);
    const isOver = isExpired(expires, now);
    let slot = reused?.slots.get(key);
    if (slot?.field !== field || (slot.entryAt === undefined) !== isOver) {
      const start = flat.length;
      const place = insertField(flat, key, field, now, MARK);
      if (!place) {
        onCorrupt();
        continue;
      }
      slot = { ...place, field, expires, nodes: flat.length - start, bytes: bytesOf(field, flat, start) };
    }
    slots.set(key, slot);
    nodes += slot.nodes;
    bytes += slot.bytes;
    if (slot.entryAt !== undefined) root.push(slot.keyAt, slot.entryAt);
    if (isOver) from = Math.max(from, expires!);
    else until = Math.min(until, expires ?? Infinity);
  }
  return { flat, root, slots, nodes, bytes, from, until };
}

/** Whether more than half of the nodes belong to fields that have changed since. */
function isMostlyGarbage({ flat, nodes }: Layout): boolean {
  return flat.length > 2 * nodes + 2;
}

/** The estimated size of a layout, in bytes. Garbage counts like the average of the rest. */
function sizeOf({ flat, nodes, bytes }: Layout): number {
  return Math.ceil((bytes * flat.length) / (nodes + 1));
}

// Measured with Node 24. An object may need as much as this for each key: objects with the same keys share them, others do not.
const BYTES_PER_FIELD = 200;
const BYTES_PER_NODE = 48;
const BYTES_PER_ITEM = 10;
const BYTES_PER_KEY = 60;

/** The estimated size of a field and of its nodes, which start at a position. Strings exist twice: in the field and in the nodes. */
function bytesOf(field: string, flat: Flat, start: number): number {
  let bytes = BYTES_PER_FIELD + 2 * field.length;
  for (let position = start; position < flat.length; position++) {
    const node = flat[position];
    bytes += BYTES_PER_NODE;
    if (Array.isArray(node)) bytes += BYTES_PER_ITEM * node.length;
    else if (typeof node === 'object' && node !== null) bytes += BYTES_PER_KEY * Object.keys(node).length;
  }
  return bytes;
}
