import type * as Values from './value.ts';

/**
 * devalue's flat array: every value is a node, and nodes refer to each other by position. Negative positions are constants (undefined, NaN,
 * ...). https://github.com/sveltejs/devalue
 *
 * The canonical encoding of a value is the JSON of a flat array with only that value, in the order in which devalue visits it, or a single
 * negative number for a constant. Every writer uses it, so equal values have equal encodings.
 */
export type Flat = unknown[];

let values: typeof Values | undefined;

/**
 * Loads devalue, which `extractValue` and `insertValue` need for special values. It is loaded at the first operation, because loading it
 * takes longer than loading the rest of a driver.
 *
 * @returns undefined when it has been loaded.
 */
export function loadDevalue(): Promise<unknown> | undefined {
  return values ? undefined : import('./value.ts').then((module) => (values = module));
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
    return values!.reencodeValue(flat, root);
  }
  return JSON.stringify(own);
}

/**
 * Appends the value of a canonical encoding to a larger flat array and returns its position there. Returns undefined, and leaves `flat`
 * unchanged, when the encoding is corrupt in a way that would make Astro throw and drop the whole session.
 */
export function insertValue(flat: Flat, body: string): number | undefined {
  // Here, because an error below would look like a corrupt encoding.
  const { decodeValue } = values!;
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
    if (needsTrial || objects > MAX_SAFE_OBJECTS) decodeValue(body);
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

/**
 * Compares values of one flat array with values of others, without encoding them.
 *
 * Objects that can be shared are paired one to one: an object that is referenced twice equals only an object that is referenced at the same
 * two places.
 *
 * @returns a function of two positions that tells whether the values have the same encoding; undefined when this cannot be told without
 *   encoding: a value of a special type, such as a Date, or nesting that is too deep.
 */
export function createComparison(
  flat: Flat,
  other: Flat,
): (position: number, otherPosition: number) => boolean | undefined {
  // For each object: its partner, and the comparison in which it was paired. Until then, the object itself: a copy takes a tenth of the time
  // of a typed array, and maps take even longer.
  const partner = flat.slice();
  const pairedIn = flat.slice();
  const otherPairedIn = other.slice();
  let comparison = 0;

  const isSame = (one: number, two: number): boolean => {
    if (one < 0 || two < 0) return one === two;
    const node = flat[one];
    const otherNode = other[two];
    if (typeof node !== 'object' || typeof otherNode !== 'object' || node === null || otherNode === null)
      return node === otherNode;
    if (pairedIn[one] === comparison) return partner[one] === two;
    if (otherPairedIn[two] === comparison) return false;
    pairedIn[one] = otherPairedIn[two] = comparison;
    partner[one] = two;
    if (Array.isArray(node)) {
      if (!Array.isArray(otherNode) || node.length !== otherNode.length) return false;
      if (isSpecial(otherNode)) throw UNKNOWN_FORM;
      for (let index = 0; index < node.length; index++) {
        if (!isSame(node[index] as number, otherNode[index] as number)) return false;
      }
      return true;
    }
    if (Array.isArray(otherNode)) return false;
    const keys = Object.keys(otherNode);
    let index = 0;
    // The order of the keys counts, because a page can see it.
    for (const key in node) {
      if (keys[index++] !== key) return false;
      if (!isSame((node as Positions)[key]!, (otherNode as Positions)[key]!)) return false;
    }
    return index === keys.length;
  };

  return (position, otherPosition) => {
    comparison++;
    try {
      return isSame(position, otherPosition);
    } catch {
      return undefined;
    }
  };
}

type Positions = Record<string, number>;

/** Whether a node that is an array stands for another type, such as a Date or a sparse array. */
function isSpecial(node: unknown[]): boolean {
  return typeof node[0] === 'string' || node[0] === SPARSE;
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
