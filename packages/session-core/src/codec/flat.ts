import { stringify, unflatten } from 'devalue';

/**
 * devalue's flat array: every value is a node, and nodes refer to each other by position. Negative positions are constants (undefined, NaN,
 * ...). https://github.com/sveltejs/devalue
 *
 * The canonical encoding of a value is the JSON of a flat array with only that value, in the order in which devalue visits it, or a single
 * negative number for a constant. Every writer uses it, so equal values have equal encodings.
 */
export type Flat = unknown[];

// Astro adds URLs to devalue. A URL node refers to its string by position.
const reducers = { URL: (value: unknown) => value instanceof URL && value.href };
const revivers = {
  URL(href: unknown) {
    // `new URL` converts its argument to a string. For a corrupt node, such as a list with a billion holes, that could take a minute.
    if (typeof href !== 'string') throw new TypeError('The URL is not a string.');
    return new URL(href);
  },
};

/**
 * Encodes a value canonically.
 *
 * @throws devalue's error when the value cannot be stored, such as a function.
 */
export function encodeValue(value: unknown): string {
  const text = stringify(value, reducers);
  // devalue escapes characters for HTML and does not escape lone surrogates. `JSON.stringify` does the opposite, so it gives the canonical
  // form.
  return text.includes('\\u') || !text.isWellFormed() ? JSON.stringify(JSON.parse(text)) : text;
}

/**
 * Decodes a canonical encoding. Every call returns a new value.
 *
 * @throws an error when the encoding is corrupt.
 */
export function decodeValue(body: string): unknown {
  return unflatten(JSON.parse(body), revivers);
}

/**
 * The canonical encoding of the value at position `root` in a larger flat array. It copies nodes and does not decode the value.
 *
 * @throws an error when the value cannot be encoded.
 */
export function extractValue(flat: Flat, root: number): string {
  if (root < 0) return String(root);
  const own: Flat = [];
  const positions = new Map<number, number>();
  const visit = (position: number): number => {
    if (position < 0) return position;
    const copied = positions.get(position);
    if (copied !== undefined) return copied;
    if (position >= flat.length) throw UNKNOWN_FORM;
    const target = own.push(null) - 1;
    positions.set(position, target);
    replacePositions((own[target] = copyOf(flat[position])), visit);
    return target;
  };
  try {
    visit(root);
  } catch (error) {
    if (error !== UNKNOWN_FORM) throw error;
    // Astro's devalue may be newer and write nodes that this code does not know. Decode and encode the value instead: the result is the
    // same if our devalue supports it.
    return encodeValue((unflatten([[root], ...flat.slice(1)], revivers) as [unknown])[0]);
  }
  return JSON.stringify(own);
}

/**
 * Appends the value of a canonical encoding to a larger flat array and returns its position there. Returns undefined, and leaves `flat`
 * unchanged, when the encoding is corrupt in a way that would make Astro throw and drop the whole session.
 */
export function insertValue(flat: Flat, body: string): number | undefined {
  const base = flat.length;
  try {
    const own: unknown = JSON.parse(body);
    if (typeof own === 'number') return isConstant(own) ? own : undefined;
    if (!Array.isArray(own) || own.length === 0) return undefined;
    let needsTrial = false;
    let objects = 0;
    const shift = (position: number): number => {
      if (position < 0 ? !isConstant(position) : position >= own.length) throw UNKNOWN_FORM;
      return position < 0 ? position : position + base;
    };
    for (const node of own) {
      needsTrial ||= needsTrialDecoding(node);
      if (typeof node === 'object') objects++;
      replacePositions(node, shift);
      flat.push(node);
    }
    // Parsed again, because devalue may append to the array that it decodes.
    if (needsTrial || objects > MAX_SAFE_OBJECTS) unflatten(JSON.parse(body), revivers);
    return base;
  } catch {
    flat.length = base;
    return undefined;
  }
}

/** Whether the value at a position is an object, which can be changed in place. */
export function isObject(flat: Flat, position: number): boolean {
  return position >= 0 && typeof flat[position] === 'object' && flat[position] !== null;
}

/** A 53-bit hash of a string, to detect that a value was changed in place (cyrb53, public domain). Not cryptographic. */
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

const UNKNOWN_FORM = new Error('This version does not support this kind of value.');
/** Values with at most this many objects cannot be nested deeply enough to overflow the stack. */
const MAX_SAFE_OBJECTS = 1000;
const HOLE = -2;
const SPARSE = -7;

const withoutPositions = new Set(['Date', 'BigInt', 'RegExp', 'ArrayBuffer', 'URLSearchParams']);
const withPositions = new Set(['Set', 'Map', 'Object', 'URL']);
const views = /^(?:DataView|(?:Big)?(?:Uint|Int|Float)\d+(?:Clamped)?Array)$/;
const alwaysDecodable = new Set(['Date', 'Set', 'Map', 'null']);

function isConstant(position: number): boolean {
  return position === -1 || (position <= -3 && position >= -6 && Number.isInteger(position));
}

/** Whether only decoding shows that a node is valid: `new URL('%')` throws, and so does `new RegExp('(')`. */
function needsTrialDecoding(node: unknown): boolean {
  if (!Array.isArray(node)) return false;
  return node[0] === SPARSE || (typeof node[0] === 'string' && !alwaysDecodable.has(node[0]));
}

/** Replaces every position in a node, in place, with the result of `visit`. */
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
