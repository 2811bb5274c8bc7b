import { applyChange } from '@coatcheck/session-core/driver';
import { packFields, packName, unpackFields } from '@coatcheck/session-core/sql';
import fc from 'fast-check';
import { expect, it } from 'vitest';

// The JSON object in which SQL drivers store the fields of a record.

// Names and values are well-formed and have no NUL, except in a name that is encoded again. Most names have what JSON or `packName` escapes.
const text = fc.string({ unit: 'binary' });
const name = fc.oneof(
  text,
  fc.string({
    unit: fc.constantFrom('\\', '"', '%', '5', 'C', 'u', '0', '2', '\n', '\u001f', '\u007f', '\u2028', '🧥'),
  }),
  fc.constantFrom('__proto__', 'constructor', '0', '-1', '\\', '\\\\', '\\"', '%5C', '%', '%%', '%zz', '\\u0022'),
);
const fields = fc.array(fc.tuple(name, fc.oneof(text, name)), { maxLength: 20 }).map((entries) => new Map(entries));

it('every field comes back as it was packed', () => {
  fc.assert(
    fc.property(fields, (packed) => {
      expect(unpackFields(packFields(packed))).toEqual(packed);
    }),
    { numRuns: 2000 },
  );
});

it('different names stay different, and a packed name needs no escape in JSON', () => {
  fc.assert(
    fc.property(name, name, (one, other) => {
      expect(JSON.stringify(packName(one))).toBe(`"${packName(one)}"`);
      expect(packName(one) === packName(other)).toBe(one === other);
    }),
    { numRuns: 2000 },
  );
});

// nodejs/node#63785: after V8 has parsed an object with the name `\\`, it may read escaped names of later objects wrongly.
it('a record with the name `\\` does not corrupt other records', () => {
  const names = ['\\', '\\\\', '\\"', '"', '\\n', '\n', 'a\\', '\\a', 'a"b', '\\u005c'];
  const records = names.map(
    (each, index) => new Map([...names.slice(index), each].map((field, at) => [field, `:${at}`])),
  );
  for (let round = 0; round < 100; round++) {
    for (const record of records) expect(unpackFields(packFields(record))).toEqual(record);
  }
});

it('text that is not a record is an error that does not quote it', () => {
  const corrupt = fc.oneof(
    text.filter((some) => !some.startsWith('{')),
    fc.json().filter((json) => !json.trimStart().startsWith('{')),
    fields
      .filter(({ size }) => size > 0)
      .chain((some) => {
        const whole = packFields(some);
        return fc.nat(whole.length - 1).map((end) => whole.slice(0, end));
      }),
    fc
      .tuple(name, fc.constantFrom('1', 'null', 'true', '{}', '[]'))
      .map(([key, value]) => `{"${packName(key)}":${value}}`),
    fc.constantFrom('', 'null', '"text"', '[":1"]', '1', '{', '{}}', '{"user":":1"', '{"user":1}', "{'user':':1'}"),
  );
  fc.assert(
    fc.property(corrupt, (packed) => {
      expect(() => unpackFields(packed)).toThrow(/^The stored record is corrupt, or a newer version wrote it\.$/);
    }),
    { numRuns: 2000 },
  );
});

it('changes of records that are packed in between have the same result as without packing', () => {
  const change = fc.record({ set: fields, unset: fc.array(name, { maxLength: 5 }) });
  fc.assert(
    fc.property(fc.array(change, { maxLength: 5 }), (changes) => {
      let [packed, plain]: [string, Map<string, string>] = [packFields(new Map()), new Map()];
      for (const { set, unset } of changes) {
        const apply = (current: Map<string, string>) => {
          const record = { fields: current, expires: Infinity, idleUntil: Infinity };
          const result = applyChange(record, { set, unset, lifetimeMs: 1000, defaultTtlMs: 1000, now: 0 }, 0);
          return (result as typeof record).fields;
        };
        packed = packFields(apply(unpackFields(packed)));
        plain = apply(plain);
      }
      expect(unpackFields(packed)).toEqual(plain);
    }),
  );
});
