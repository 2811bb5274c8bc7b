import { unflatten } from 'devalue';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { astrosInScope, createBrowser } from './support/astro-site.ts';
import { createBackend } from './support/backend.ts';
import { runs, values } from './support/values.ts';
import { keyOfField } from '../src/codec/field.ts';
import { type MarkResolver, savedSession } from '../src/astro/changes.ts';
import { resultIn } from '../src/astro/unidentified.ts';
import { insertValue, type Flat, loadDevalue } from '../src/codec/flat.ts';
import { decodePayload } from '../src/codec/payload.ts';
import { encodeValue } from '../src/codec/value.ts';

beforeAll(() => loadDevalue());

const revivers = { URL: (href: string) => new URL(href) };

/** Valid or invalid values for a position or an operand. */
const junk: fc.Arbitrary<unknown> = fc.oneof(
  fc.integer({ min: -9, max: 20 }),
  fc.constantFrom<unknown>(0.5, -0, 1e21, 2 ** 32, -(2 ** 31), null, true, '', 'x', '%', '(', '!!!!', 'http://x/'),
  fc.constantFrom<unknown>([], {}, [[]], ['URL', 0], { toString: 1, valueOf: 1 }, { length: 1e9 }),
);

const knownTypes = [
  'Date',
  'Set',
  'Map',
  'RegExp',
  'Object',
  'BigInt',
  'null',
  'URL',
  'URLSearchParams',
  'ArrayBuffer',
  'Uint8Array',
  'Float64Array',
  'BigInt64Array',
  'DataView',
  'Temporal.Instant',
];

/** Nodes that are invalid, or valid only at certain positions. */
const strangeNode: fc.Arbitrary<unknown> = fc.oneof(
  junk,
  fc.tuple(
    fc.constantFrom(...knownTypes, 'Temporal.Nothing', 'Uint7Array', 'Custom', '__proto__', 'constructor', '', -7, -2),
    junk,
    junk,
    junk,
  ),
  fc.tuple(fc.constantFrom(...knownTypes, -7), junk),
  fc
    .tuple(fc.constantFrom('__proto__', 'constructor', 'then', 'a'), junk)
    .map(([key, value]) => Object.defineProperty({}, key, { value, enumerable: true })),
);

type Damage = (own: unknown[]) => unknown;

/** A function that damages one node. */
const damage: fc.Arbitrary<Damage> = fc.oneof(
  fc.tuple(fc.nat(), strangeNode).map(
    ([place, node]): Damage =>
      (own) =>
        own.with(place % own.length, node),
  ),
  fc.tuple(fc.nat(), fc.nat(), junk).map(([place, item, value]): Damage => (own) => {
    const node = own[place % own.length];
    if (typeof node !== 'object' || node === null) return own.with(place % own.length, value);
    const copy = structuredClone(node) as Record<string, unknown>;
    const keys = Object.keys(copy);
    copy[keys[item % keys.length] ?? '0'] = value;
    return own.with(place % own.length, copy);
  }),
  fc.tuple(fc.nat(), junk).map(([place, value]): Damage => (own) => {
    const node = own[place % own.length];
    return Array.isArray(node) ? own.with(place % own.length, [...node, value]) : own.slice(0, -1);
  }),
  fc.nat().map((place): Damage => (own) => {
    const node = own[place % own.length];
    return Array.isArray(node) ? own.with(place % own.length, node.slice(0, -1)) : own.toReversed();
  }),
  fc.tuple(fc.nat(), fc.nat()).map(
    ([from, to]): Damage =>
      (own) =>
        own.with(from % own.length, own[to % own.length]),
  ),
  junk.map(
    (whole): Damage =>
      () =>
        whole,
  ),
);

const cut = fc.tuple(fc.nat(), fc.nat(), fc.constantFrom('', '0', '-', ',', '"', '[', '{}', '\\', '\uD800'));

/** The encoding of a value, damaged. */
const damagedBody: fc.Arbitrary<string> = fc
  .tuple(values, fc.array(damage, { minLength: 1, maxLength: 2 }), fc.option(cut, { freq: 4 }))
  .map(([make, damages, textDamage]) => {
    let own: unknown = JSON.parse(encodeValue(make()));
    for (const apply of damages) if (Array.isArray(own) && own.length > 0) own = apply(own);
    const body = JSON.stringify(own);
    if (!textDamage) return body;
    const [at, length, inserted] = textDamage;
    const place = at % (body.length + 1);
    return body.slice(0, place) + inserted + body.slice(place + (length % 4));
  });

const builtins = [Object, Array, Map, Set, Date, URL, RegExp, Function].map((type) => type.prototype as object);
const describeBuiltins = (): string => JSON.stringify(builtins.map((proto) => Reflect.ownKeys(proto).map(String)));

it(
  'no corrupt field makes Astro throw or changes a prototype, and a rejected one leaves the array unchanged',
  { timeout: 60_000 },
  () => {
    const before = describeBuiltins();
    let kept = 0;
    let leftOut = 0;
    fc.assert(
      fc.property(damagedBody, (body) => {
        const flat: Flat = ['root', ['Map'], 'other'];
        const position = insertValue(flat, body);
        if (position === undefined) {
          expect(flat).toEqual(['root', ['Map'], 'other']);
          leftOut++;
          return;
        }
        flat[0] = [position];
        // Astro decodes it and encodes it again.
        const [value] = unflatten(flat, revivers) as [unknown];
        encodeValue(value);
        kept++;
      }),
      { numRuns: runs(8000) },
    );
    expect(describeBuiltins()).toBe(before);
    // Both cases occurred often.
    expect(Math.min(kept, leftOut)).toBeGreaterThan(runs(800));
  },
);

it.each([
  ['a truncated encoding', '[[1,2],"a"'],
  ['an empty string', ''],
  ['invalid JSON', 'a'],
  ['a position beyond the end', '[[1]]'],
  ['a fractional position', '[[0.5]]'],
  ['an unknown constant', '-2'],
  ['an unknown type', '[["Custom",1],1]'],
  ['a key that would set the prototype', '[{"__proto__":1},{}]'],
  ['the same key in an object without a prototype', '[["null","__proto__",1],1]'],
  ['a Map with a key but no value', '[["Map",1],"a"]'],
  ['an invalid URL', '[["URL",1],"%"]'],
  ['a URL that refers to itself', '[["URL",0]]'],
  ['an invalid RegExp', '[["RegExp","("]]'],
  ['an invalid BigInt', '[["BigInt","x"]]'],
  ['an invalid Date', '[["Date",{"toString":1,"valueOf":1}]]'],
  ['a typed array without a buffer', '[["Uint8Array",1],null]'],
  ['a typed array beyond the end of its buffer', '[["Uint8Array",1,0,9],["ArrayBuffer","AA=="]]'],
  ['an array that is too long', '[[-7,4294967296]]'],
  ['nesting that is too deep', `[${Array.from({ length: 50_000 }, (_, level) => `[${level + 1}]`).join()},0]`],
])('%s is corrupt', (_name, body) => {
  const flat: Flat = [['Map']];
  expect(insertValue(flat, body)).toBeUndefined();
  expect(flat).toEqual([['Map']]);
});

it.each([
  ['a key', [5, 6, 7, 7, -1, -1, -1]],
  ['an expiry', [5, 6, 7, 7, 1, 1, -1]],
  ['the id', [5, 7, 7, 7]],
  ['the time', [5, 6, 6, 7]],
  ['the other time', [5, 6, 7, 6]],
])('a mark with an invalid value for %s is rejected', (_name, mark) => {
  const entry = { data: 3, expires: -1, _: 4 };
  const payload = [['Map', 1, 2], 'key', entry, 'value', mark, 'nonce', 'id', 1];
  const find: MarkResolver['find'] = (found, flat) => resultIn('test', flat, found as unknown[], 'nonce');
  expect(() => savedSession('test', payload, { find, onUnknown: () => undefined })).toThrow(
    'This is not a session as Astro writes it',
  );
});

it.each(['"a"', '"\\u0061"', '"a', '"a"b'])('the field name %s is corrupt, because no session key has it', (name) => {
  expect(keyOfField(name)).toBeUndefined();
});

it.each([-5, -6])('an entry whose expiry is the constant %i has expired, as in Astro', (expires) => {
  const { entries } = decodePayload('test', [['Map', 1, 2], 'key', { data: 3, expires }, 'value']);
  expect(entries.get('key')!.expires).toBe(0);
});

describe.each(astrosInScope)('in Astro $version', { timeout: 60_000 }, (astro) => {
  it('the rest of the session is kept, and the corrupt field does not change', async () => {
    const backend = createBackend();
    const browser = createBrowser(astro, backend.driver);
    await browser.visit((session) => session.set('good', { cart: ['hat'] }));
    const id = browser.cookie!;
    await fc.assert(
      fc.asyncProperty(damagedBody, fc.constantFrom('', '9999999999999'), async (body, expires) => {
        const field = `${expires}:${body}`;
        await backend.poke(id, { bad: field });
        const has = await browser.visit(async (session) => {
          expect(await session.get('good')).toEqual({ cart: ['hat'] });
          await session.get('bad');
          session.set('other', 1);
          return session.has('bad');
        });
        expect(browser.cookie).toBe(id);
        const fields = (await backend.peek(id))!;
        expect([...fields.keys()].sort()).toEqual(['bad', 'good', 'other']);
        if (!has) expect(fields.get('bad')).toBe(field);
      }),
      { numRuns: runs(500) },
    );
  });

  it.each(['', 'x', '12', ':', 'x:[1]', '-x:[1]', '1e99:[1]', '12.5:[1]', '\uD800'])(
    'the corrupt field %j is left out, and does not change when another key is written',
    async (field) => {
      const backend = createBackend();
      const browser = createBrowser(astro, backend.driver);
      await browser.visit((session) => session.set('good', 1));
      await backend.poke(browser.cookie!, { bad: field });
      await browser.visit(async (session) => {
        expect(await session.entries()).toEqual([['good', 1]]);
        session.set('good', 2);
      });
      const fields = await backend.peek(browser.cookie!);
      expect(Object.fromEntries(fields!)).toEqual({ good: ':[2]', bad: field });
    },
  );
});
