import { stringify, unflatten } from 'devalue';

/**
 * The flat form of devalue: an array in which every value is a node and nodes refer to each other by position. Negative positions are
 * constants (undefined, NaN, ...). https://github.com/sveltejs/devalue
 *
 * The canonical encoding of a value is the JSON text of its own flat array in the order in which devalue walks it, or a bare negative
 * number. Every writer uses this one spelling, so that equal values are equal text.
 */
export type Flat = unknown[];

// What Astro adds to devalue: URLs refer to their text by position.
const reducers = { URL: (value: unknown) => value instanceof URL && value.href };
const revivers = {
  URL(href: unknown) {
    // Made text, a corrupt one could take a minute: a list of a thousand million holes.
    if (typeof href !== 'string') throw new TypeError('The address is no text.');
    return new URL(href);
  },
};

/** The canonical encoding of a value. Throws devalue's error for what cannot be stored. */
export function encodeValue(value: unknown): string {
  const text = stringify(value, reducers);
  // devalue escapes for HTML and leaves lone surrogates bare; JSON does neither.
  return text.includes('\\u') || !text.isWellFormed() ? JSON.stringify(JSON.parse(text)) : text;
}

/** A fresh value from its canonical encoding. Throws when the text is corrupt. */
export function decodeValue(body: string): unknown {
  return unflatten(JSON.parse(body), revivers);
}

/** The canonical encoding of the value at `root`, read from a larger flat array without making the value. */
export function extractValue(flat: Flat, root: number): string {
  if (root < 0) return String(root);
  const own: Flat = [];
  const positions = new Map<number, number>();
  const visit = (position: number): number => {
    if (position < 0) return position;
    const known = positions.get(position);
    if (known !== undefined) return known;
    if (position >= flat.length) throw UNKNOWN_FORM;
    const place = own.push(null) - 1;
    positions.set(position, place);
    replacePositions((own[place] = copyOf(flat[position])), visit);
    return place;
  };
  try {
    visit(root);
  } catch (error) {
    if (error !== UNKNOWN_FORM) throw error;
    // A form that a newer devalue in Astro writes: as far as ours knows it, going through the value gives the same encoding.
    return encodeValue((unflatten([[root], ...flat.slice(1)], revivers) as [unknown])[0]);
  }
  return JSON.stringify(own);
}

/**
 * Appends the value in a canonical encoding to a larger flat array; returns its position there, or undefined when the text is corrupt
 * in any way that would make Astro throw, and with it drop the whole session. `flat` is unchanged then.
 */
export function insertValue(flat: Flat, body: string): number | undefined {
  const base = flat.length;
  try {
    const own: unknown = JSON.parse(body);
    if (typeof own === 'number') return isConstant(own) ? own : undefined;
    if (!Array.isArray(own) || own.length === 0) return undefined;
    let delicate = false;
    let objects = 0;
    const shift = (position: number): number => {
      if (position < 0 ? !isConstant(position) : position >= own.length) throw UNKNOWN_FORM;
      return position < 0 ? position : position + base;
    };
    for (const node of own) {
      delicate ||= isDelicate(node);
      if (typeof node === 'object') objects++;
      replacePositions(node, shift);
      flat.push(node);
    }
    // devalue's revivers may append to the array that they are given.
    if (delicate || objects > SHALLOW) unflatten(JSON.parse(body), revivers);
    return base;
  } catch {
    flat.length = base;
    return undefined;
  }
}

/** Whether the value at a position can be changed in place by whoever holds it. */
export function isObject(flat: Flat, position: number): boolean {
  return position >= 0 && typeof flat[position] === 'object' && flat[position] !== null;
}

/** 53 bits of a text: enough to see that a value was changed in place (cyrb53, public domain). */
export function digest(text: string): number {
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

const UNKNOWN_FORM = new Error('A form of value that this version does not know.');
/** So few objects cannot be nested deeper than the stack reaches. */
const SHALLOW = 1000;
const HOLE = -2;
const SPARSE = -7;

const withoutPositions = new Set(['Date', 'BigInt', 'RegExp', 'ArrayBuffer', 'URLSearchParams']);
const withPositions = new Set(['Set', 'Map', 'Object', 'URL']);
const views = /^(?:DataView|(?:Big)?(?:Uint|Int|Float)\d+(?:Clamped)?Array)$/;
const sturdy = new Set(['Date', 'Set', 'Map', 'null']);

function isConstant(position: number): boolean {
  return position === -1 || (position <= -3 && position >= -6 && Number.isInteger(position));
}

/** Nodes that only devalue itself can check: `new URL('%')` throws, and so does `new RegExp('(')`. */
function isDelicate(node: unknown): boolean {
  if (!Array.isArray(node)) return false;
  return node[0] === SPARSE || (typeof node[0] === 'string' && !sturdy.has(node[0]));
}

/** Replaces every position in a node, in place, by what `visit` makes of it. */
function replacePositions(node: unknown, visit: (position: number) => number): void {
  if (typeof node !== 'object' || node === null) return;
  if (!Array.isArray(node)) {
    const positions = node as Record<string, unknown>;
    for (const key in positions) {
      if (key === '__proto__') throw UNKNOWN_FORM;
      positions[key] = visit(asPosition(positions[key]));
    }
    return;
  }
  const type: unknown = node[0];
  let first = 1;
  let last = node.length - 1;
  let step = 1;
  if (type === SPARSE) {
    // [SPARSE, length, index, position, index, position, ...]
    first = 3;
    step = 2;
  } else if (typeof type !== 'string') {
    for (let index = 0; index <= last; index++) if (node[index] !== HOLE) node[index] = visit(asPosition(node[index]));
    return;
  } else if (type === 'null') {
    if (last % 2 !== 0) throw UNKNOWN_FORM;
    for (let index = 1; index < last; index += 2) if (!isPlainKey(node[index])) throw UNKNOWN_FORM;
    first = step = 2;
  } else if (views.test(type)) last = 1;
  else if (type === 'Map' && last % 2 !== 0) throw UNKNOWN_FORM;
  else if (type === 'Date' && typeof node[1] !== 'string') throw UNKNOWN_FORM;
  else if (
    withoutPositions.has(type) ||
    type.startsWith('Temporal.') ||
    (type === 'URL' && typeof node[1] === 'string')
  )
    return;
  else if (!withPositions.has(type)) throw UNKNOWN_FORM;
  for (let index = first; index <= last; index += step) node[index] = visit(asPosition(node[index]));
}

function asPosition(position: unknown): number {
  if (!Number.isInteger(position)) throw UNKNOWN_FORM;
  return position as number;
}

function copyOf(node: unknown): unknown {
  if (typeof node !== 'object' || node === null) return node;
  return Array.isArray(node) ? node.slice() : { ...node };
}

function isPlainKey(key: unknown): boolean {
  return typeof key === 'string' && key !== '__proto__';
}
