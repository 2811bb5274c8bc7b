import type { Fields } from '../contract/store.ts';

/** A record as a store in JavaScript holds it. Moments are epoch milliseconds by the store's clock; Infinity stands for never. */
export interface StoredRecord {
  fields: Fields;
  /** When the longest-lived field goes. */
  deadline: number;
  /** When the record goes unless it is read or written before. */
  idleUntil: number;
}

/** When a record goes, by whichever of its two limits comes first. */
export function endOf(record: StoredRecord): number {
  return Math.min(record.deadline, record.idleUntil);
}

const VERSION = '1';

// Lengths in front, text behind: packing is one join and unpacking one slice a field, where JSON would escape every quote of every
// value again. Base 36 keeps the numbers short; a million sessions live in memory in this form.
/** A record as one string. */
export function packRecord({ fields, deadline, idleUntil }: StoredRecord): string {
  const head = [VERSION, packMoment(deadline), packMoment(idleUntil)];
  const texts = ['\n'];
  for (const [name, value] of fields) {
    head.push(name.length.toString(36), value.length.toString(36));
    texts.push(name, value);
  }
  // One flat string, where concatenation makes a tree of them that takes twice the memory.
  return [head.join(' '), ...texts].join('');
}

/** The record in a packed string. Throws when the text is not one: a corrupt record is an error, never a miss. */
export function unpackRecord(packed: string): StoredRecord {
  const headEnd = packed.indexOf('\n');
  const [version, deadline, idleUntil, ...lengths] = packed.slice(0, Math.max(headEnd, 0)).split(' ');
  if (version !== VERSION || deadline === undefined || idleUntil === undefined) throw unreadable();
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
  return { fields, deadline: unpackMoment(deadline), idleUntil: unpackMoment(idleUntil) };
}

function unreadable(): Error {
  return new Error('The stored record is not in a form that this version can read.');
}

function packMoment(moment: number): string {
  return moment === Infinity ? '' : moment.toString(36);
}

function unpackMoment(text: string): number {
  const moment = text === '' ? Infinity : parseInt(text, 36);
  if (Number.isNaN(moment)) throw unreadable();
  return moment;
}
