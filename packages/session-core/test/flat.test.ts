import * as devalue5 from 'devalue';
import * as devalue6 from 'devalue-6';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { changeInPlace, runs, sessionKey, values } from './support/values.ts';
import { encodeField } from '../src/codec/field.ts';
import { insertValue, decodeValue, encodeValue, extractValue, type Flat } from '../src/codec/flat.ts';
import { type Snapshot, encodePayload, decodePayload } from '../src/codec/payload.ts';

// The same as Astro adds to devalue. https://github.com/withastro/astro/blob/main/packages/astro/src/core/session/runtime.ts
const reducers = { URL: (value: unknown) => value instanceof URL && value.href };
const revivers = { URL: (href: string) => new URL(href) };

const NONCE = 'nonce';

interface AstroEntry {
  data: unknown;
  expires: number | undefined;
}

/** A session as Astro keeps it in memory. */
const session: fc.Arbitrary<Map<string, AstroEntry>> = fc
  .tuple(
    values,
    fc.uniqueArray(sessionKey, { minLength: 5, maxLength: 5 }),
    fc.array(fc.option(fc.integer({ min: Date.now() + 3_600_000, max: 8e15 }), { nil: undefined }), { minLength: 5 }),
  )
  .map(
    ([make, keys, expiries]) =>
      new Map(make().map((data, index) => [keys[index]!, { data, expires: expiries[index] }])),
  );

/** The position of the value of an entry in a session as Astro writes it. */
function positionOf(flat: Flat, index: number): number {
  return (flat[(flat[0] as number[])[2 * index + 2]!] as { data: number }).data;
}

function toFields(entries: Map<string, AstroEntry>): Map<string, string> {
  return new Map([...entries].map(([key, { data, expires }]) => [key, encodeField(expires, encodeValue(data))]));
}

function fail(): never {
  throw new Error('A field is corrupt.');
}

function encode(fields: Map<string, string>): { flat: Flat; snapshot: Snapshot } {
  const snapshot: Snapshot = { id: 'id', at: { wall: Date.now(), monotonic: performance.now() }, keys: new Map() };
  return { flat: encodePayload(fields, Date.now(), fail, { nonce: NONCE, snapshot }), snapshot };
}

describe.each([
  { name: '5', stringify: devalue5.stringify, unflatten: devalue5.unflatten },
  { name: '6', stringify: devalue6.stringify, unflatten: devalue6.unflatten },
])('with devalue $name in Astro', ({ stringify, unflatten }) => {
  const hydrate = (flat: Flat) => unflatten(flat, revivers) as Map<string, AstroEntry>;

  it('a value has the same encoding from Astro and from encodeValue()', () => {
    fc.assert(
      fc.property(session, (entries) => {
        const flat = JSON.parse(stringify(entries, reducers)) as Flat;
        [...entries.values()].forEach(({ data }, place) => {
          expect(extractValue(flat, positionOf(flat, place))).toBe(encodeValue(data));
        });
      }),
      { numRuns: runs(2000) },
    );
  });

  it('a session that Astro loads and saves unchanged has the same fields, and none counts as modified', () => {
    fc.assert(
      fc.property(session, (entries) => {
        const fields = toFields(entries);
        const { flat, snapshot } = encode(fields);
        const payload = stringify(hydrate(flat), reducers);
        const back = decodePayload('test', payload, NONCE);
        expect(back.snapshots).toEqual([snapshot]);
        expect([...back.snapshots[0]!.keys.keys()]).toEqual([...entries.keys()]);
        for (const [key, entry] of back.entries) {
          expect([key, entry.modified, entry.encoded()]).toEqual([key, false, fields.get(key)]);
        }
        expect(back.entries.size).toBe(fields.size);
      }),
      { numRuns: runs(2000) },
    );
  });

  it('a value that was changed in place counts as modified, and no other', () => {
    fc.assert(
      fc.property(session, fc.nat(), (entries, pick) => {
        const fields = toFields(entries);
        const loaded = hydrate(encode(fields).flat);
        const [key, { data }] = [...loaded][pick % loaded.size]!;
        fc.pre(changeInPlace(data));
        const changed = encodeValue(data);
        const back = decodePayload('test', stringify(loaded, reducers), NONCE);
        for (const [name, entry] of back.entries) expect([name, entry.modified]).toEqual([name, name === key]);
        expect(back.entries.get(key)!.encoded()).toBe(encodeField(entries.get(key)!.expires, changed));
      }),
      { numRuns: runs(1000) },
    );
  });
});

it('a decoded value has the same encoding again', () => {
  fc.assert(
    fc.property(values, (make) => {
      for (const value of make()) {
        const body = encodeValue(value);
        expect(encodeValue(decodeValue(body))).toBe(body);
        expect(body.isWellFormed()).toBe(true);
        expect(body).toBe(JSON.stringify(JSON.parse(body)));
      }
    }),
    { numRuns: runs(1000) },
  );
});

it('a value with a thousand levels of nesting is encoded and inserted', () => {
  let value: unknown = [];
  for (let level = 0; level < 1000; level++) value = level % 2 === 0 ? [value] : { value };
  const flat = JSON.parse(devalue5.stringify(new Map([['key', { data: value }]]))) as Flat;
  const body = encodeValue(value);
  expect(extractValue(flat, positionOf(flat, 0))).toBe(body);
  const whole: Flat = ['root'];
  expect(insertValue(whole, body)).toBe(1);
  expect(whole).toHaveLength(1002);
});

it('a URL node that refers to a list with a billion holes is rejected immediately', () => {
  // Visiting the holes would take minutes for each of these, so the test would time out.
  for (let round = 0; round < 1000; round++) {
    const body = '[["URL",1],[-7,1000000000,0,2],["Map"]]';
    expect(() => decodeValue(body)).toThrow(TypeError);
    expect(insertValue([], body)).toBeUndefined();
  }
});
