import type { Fields } from '../contract/store.ts';

/** A record in a store that is written in JavaScript. Timestamps are epoch milliseconds by the store's clock; Infinity means never. */
export interface StoredRecord {
  /** The fields, by name. */
  fields: Fields;
  /** The expiry: when the longest-lived field expires. */
  expires: number;
  /** The idle limit: when the record expires unless it is read or written before. */
  idleUntil: number;
}

/** When a record expires, in epoch milliseconds: at its expiry or its idle limit, whichever comes first. */
export function endOf(record: StoredRecord): number {
  return Math.min(record.expires, record.idleUntil);
}

const VERSION = '1';

// All lengths come first, then all names and values. So packing is one join and unpacking is one slice per string. JSON would escape every
// quote in every value again. Base 36 keeps the numbers short, which matters when a million sessions are in memory.
/** Packs a record into one string. */
export function packRecord({ fields, expires, idleUntil }: StoredRecord): string {
  const head = [VERSION, packTimestamp(expires), packTimestamp(idleUntil)];
  const strings = ['\n'];
  for (const [name, value] of fields) {
    head.push(name.length.toString(36), value.length.toString(36));
    strings.push(name, value);
  }
  // `join` makes one flat string. Concatenation makes a tree of strings that takes twice the memory.
  return [head.join(' '), ...strings].join('');
}

/**
 * Unpacks a record.
 *
 * @throws an error when the string is not a packed record. A corrupt record is an error and never counts as a missing one.
 */
export function unpackRecord(packed: string): StoredRecord {
  const headEnd = packed.indexOf('\n');
  const [version, expires, idleUntil, ...lengths] = packed.slice(0, Math.max(headEnd, 0)).split(' ');
  if (version !== VERSION || expires === undefined || idleUntil === undefined) throw unreadable();
  const fields: Fields = new Map();
  let position = headEnd + 1;
  for (let index = 0; index < lengths.length; index += 2) {
    const nameLength = parseInt(lengths[index] ?? '', 36);
    const valueLength = parseInt(lengths[index + 1] ?? '', 36);
    if (!(nameLength > 0 && valueLength >= 0)) throw unreadable();
    const nameEnd = position + nameLength;
    const valueEnd = nameEnd + valueLength;
    fields.set(packed.slice(position, nameEnd), packed.slice(nameEnd, valueEnd));
    position = valueEnd;
  }
  if (position !== packed.length) throw unreadable();
  return { fields, expires: unpackTimestamp(expires), idleUntil: unpackTimestamp(idleUntil) };
}

function unreadable(): Error {
  return new Error('The stored record is corrupt, or a newer version wrote it.');
}

function packTimestamp(timestamp: number): string {
  return timestamp === Infinity ? '' : timestamp.toString(36);
}

function unpackTimestamp(packed: string): number {
  const timestamp = packed === '' ? Infinity : parseInt(packed, 36);
  if (Number.isNaN(timestamp)) throw unreadable();
  return timestamp;
}
