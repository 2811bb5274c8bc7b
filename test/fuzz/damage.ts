import { stringify, unflatten } from 'devalue';
import fc from 'fast-check';
import { sessionKey, values } from '../../packages/session-core/test/support/values.ts';
import { assert, SECRET } from './target.ts';

/** What Astro keeps of each session key. */
export interface Entry {
  data: unknown;
  expires: number | undefined;
}

export type Flat = unknown[];

// What Astro adds to devalue.
const reducers = { URL: (value: unknown) => value instanceof URL && value.href };
const revivers = {
  URL(href: unknown) {
    assert(typeof href === 'string', 'Astro was handed a URL that is no text.');
    return new URL(href);
  },
};

export const flatten = (value: unknown): string => stringify(value, reducers);
export const unflattenText = (text: string): unknown => unflatten(JSON.parse(text) as Flat, revivers);

/** As Astro does it, which throws, and drops the session, when it is handed anything else than a Map. */
export function hydrate(flat: unknown): Map<string, Entry> {
  const session = unflatten(flat as Flat, revivers) as Map<string, Entry>;
  assert(session instanceof Map, 'Astro was handed no Map.');
  for (const [key, entry] of session) {
    assert(typeof key === 'string' && key !== '', 'Astro was handed a key that it cannot store.', key);
    assert(typeof entry === 'object' && entry !== null && 'data' in entry, 'Astro was handed a broken entry.', entry);
  }
  return session;
}

const FAR = 4_000_000_000_000;

/** A session as Astro holds it. Each call makes the values anew. */
export const session: fc.Arbitrary<() => Map<string, Entry>> = fc
  .tuple(
    values,
    fc.uniqueArray(sessionKey, { minLength: 5, maxLength: 5 }),
    fc.array(fc.constantFrom(undefined, undefined, FAR, FAR + 1, 1, 0, -1), { minLength: 5, maxLength: 5 }),
  )
  .map(([make, keys, expiries]) => () => {
    const data = [...make().slice(0, 4), { secret: SECRET }];
    return new Map(data.map((value, index) => [keys[index]!, { data: value, expires: expiries[index] }]));
  });

// Made text, it would be joined for a minute.
const LONG = 1e9;

const junkText = ['', 'x', '%', '(', '!!!!', 'http://x/', '__proto__', 'constructor', 'data', '~', '#', SECRET];
const types = ['Map', 'Set', 'Date', 'RegExp', 'Object', 'BigInt', 'null', 'URL', 'URLSearchParams', 'ArrayBuffer'];
const moreTypes = ['Uint8Array', 'Float64Array', 'BigInt64Array', 'DataView', 'Temporal.Instant', 'Custom'];

/** What may stand where something else belongs. */
export const junk: fc.Arbitrary<unknown> = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: -9, max: 25 }) },
  { weight: 2, arbitrary: fc.constantFrom<unknown>(0.5, -0, 1e21, 2 ** 32, 2 ** 32 - 1, -(2 ** 31), null, true) },
  fc.constantFrom<unknown>(...junkText),
  fc.constantFrom<unknown>([], {}, [[]], ['URL', 0], [-7, 2 ** 32 - 1], [-7, LONG, 3, 0], { length: 1e9 }),
  fc.constant(Object.fromEntries([['__proto__', 0]])),
  fc.array(fc.integer({ min: -9, max: 25 }), { maxLength: 4 }),
  fc
    .tuple(
      fc.constantFrom(...types, ...moreTypes, -7, -2),
      fc.array(fc.integer({ min: -7, max: 25 }), { maxLength: 4 }),
    )
    .map(([type, rest]) => [type, ...rest]),
  fc
    .tuple(fc.constantFrom(...junkText), fc.integer({ min: -7, max: 25 }))
    .map(([key, value]) => Object.fromEntries([[key, value]])),
);

/** Does something to a flat array, in place. */
export type Damage = (flat: Flat) => void;

const somewhere = fc.nat(200);

export const damage: fc.Arbitrary<Damage> = fc.oneof(
  fc.tuple(somewhere, junk).map(
    ([place, node]): Damage =>
      (flat) =>
        void (flat[place % flat.length] = copy(node)),
  ),
  fc.tuple(somewhere, somewhere).map(([one, other]): Damage => (flat) => {
    const [first, second] = [one % flat.length, other % flat.length];
    [flat[first], flat[second]] = [flat[second], flat[first]];
  }),
  { weight: 4, arbitrary: fc.tuple(somewhere, somewhere, junk).map(replaceItem) },
  fc.tuple(somewhere, somewhere, somewhere).map(([place, from, to]): Damage => (flat) => {
    const node = flat[place % flat.length];
    if (!Array.isArray(node) || node.length === 0) return;
    [node[from % node.length], node[to % node.length]] = [node[to % node.length], node[from % node.length]];
  }),
  fc.tuple(somewhere, junk).map(([place, item]): Damage => (flat) => {
    const node = flat[place % flat.length];
    if (Array.isArray(node)) node.push(copy(item));
    else flat.push(copy(item));
  }),
  somewhere.map((place): Damage => (flat) => {
    const node = flat[place % flat.length];
    if (Array.isArray(node)) node.pop();
    else if (flat.length > 1) flat.pop();
  }),
  fc.tuple(somewhere, somewhere, fc.constantFrom(...junkText)).map(([place, item, key]): Damage => (flat) => {
    const node = flat[place % flat.length];
    if (typeof node !== 'object' || node === null || Array.isArray(node)) return;
    const entries = Object.entries(node);
    if (entries.length > 0) entries[item % entries.length]![0] = key;
    flat[place % flat.length] = Object.fromEntries(entries);
  }),
);

// What is put in twice, or in two cases, must not be one thing.
const copy = (value: unknown): unknown => JSON.parse(JSON.stringify(value)) as unknown;

function replaceItem([place, item, value]: [number, number, unknown]): Damage {
  return (flat) => {
    const node = flat[place % flat.length];
    if (typeof node !== 'object' || node === null) return;
    const keys = Object.keys(node);
    if (keys.length > 0) (node as Record<string, unknown>)[keys[item % keys.length]!] = copy(value);
  };
}

/** The JSON text of a flat array after some damage. */
export function corrupt(text: string, damages: Damage[]): string {
  const flat = JSON.parse(text) as Flat;
  // A bare number stands for a constant.
  if (Array.isArray(flat)) for (const apply of damages) apply(flat);
  return JSON.stringify(flat);
}

export function rarely<Value>(arbitrary: fc.Arbitrary<Value>, oneIn = 10): fc.Arbitrary<Value | undefined> {
  return fc.oneof({ weight: oneIn - 1, arbitrary: fc.constant(undefined) }, arbitrary);
}

const scraps = ['', '', '0', '-', ',', '"', '[', '{}', '\\', '\uD800', '\0', ':', ' ', '\n', SECRET, 'é'];

/** Replaces a piece of a text. */
export const cut: fc.Arbitrary<(text: string) => string> = fc
  .tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.nat(4), fc.constantFrom(...scraps), fc.boolean())
  .map(([where, length, scrap, isRest]) => (text) => {
    const place = Math.floor(where * text.length);
    return text.slice(0, place) + scrap + (isRest ? '' : text.slice(place + length));
  });
