import * as devalue5 from 'devalue';
import * as devalue6 from 'devalue-6';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { astroSession, runs, values } from './support/values.ts';
import { insertValue, extractValue, type Flat, loadDevalue } from '../src/codec/flat.ts';
import { decodeValue, encodeValue } from '../src/codec/value.ts';

beforeAll(() => loadDevalue());

// The same as Astro adds to devalue. https://github.com/withastro/astro/blob/main/packages/astro/src/core/session/runtime.ts
const reducers = { URL: (value: unknown) => value instanceof URL && value.href };

/** The position of the value of an entry in a session as Astro writes it. */
function positionOf(flat: Flat, index: number): number {
  return (flat[(flat[0] as number[])[2 * index + 2]!] as { data: number }).data;
}

describe.each([
  { name: '5', stringify: devalue5.stringify },
  { name: '6', stringify: devalue6.stringify },
])('with devalue $name in Astro', ({ stringify }) => {
  it('a value has the same encoding from Astro and from encodeValue()', () => {
    fc.assert(
      fc.property(astroSession, (entries) => {
        const flat = JSON.parse(stringify(entries, reducers)) as Flat;
        [...entries.values()].forEach(({ data }, place) => {
          expect(extractValue(flat, positionOf(flat, place))).toBe(encodeValue(data));
        });
      }),
      { numRuns: runs(2000) },
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
