import { unflatten } from 'devalue';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { payloadOf } from '../src/astro/changes.ts';
import { createLayoutCache, type Layout } from '../src/astro/layout.ts';
import { encodeField } from '../src/codec/field.ts';
import { type Flat, loadDevalue } from '../src/codec/flat.ts';
import { encodePayload } from '../src/codec/payload.ts';
import { encodeValue } from '../src/codec/value.ts';
import { runs, values } from './support/values.ts';

beforeAll(() => loadDevalue());

const revivers = { URL: (href: string) => new URL(href) };

/** What Astro reads from a payload. */
function contents(flat: Flat): string {
  const session = unflatten(flat, revivers) as Map<string, { data: unknown; expires: number | undefined }>;
  return JSON.stringify([...session].map(([key, { data, expires }]) => [key, expires, encodeValue(data)]));
}

function fail(): never {
  throw new Error('A field is corrupt.');
}

const NOW = 1_800_000_000_000;

/** One event in the life of some sessions. */
type Step =
  | { do: 'set'; key: string; make: () => unknown; ttl: number | undefined }
  | { do: 'delete'; key: string }
  | { do: 'set clock'; to: number }
  | { do: 'spoil'; key: string }
  | { do: 'forget' };

const key = fc.constantFrom('a', 'b', 'c', '__proto__');
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant('set' as const),
      key,
      make: values.map((makeAll) => () => makeAll()[0]),
      ttl: fc.constantFrom(undefined, 10, 1000, -10),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('delete' as const, 'spoil' as const), key }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('set clock' as const), to: fc.integer({ min: -20, max: 2000 }) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('forget' as const) }) },
);

it('a cached layout has what a new one has, whatever happens to the session and to the clock', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.constantFrom('one', 'two'), step), { maxLength: 30 }),
      fc.constantFrom(undefined, 3000, 0),
      (program, maxBytes) => {
        const cache = createLayoutCache(maxBytes);
        const sessions = new Map([
          ['one', new Map<string, string>()],
          ['two', new Map<string, string>()],
        ]);
        let now = NOW;
        for (const [id, todo] of program) {
          const fields = sessions.get(id)!;
          if (todo.do === 'set') {
            const expires = todo.ttl === undefined ? undefined : now + todo.ttl;
            fields.set(todo.key, encodeField(expires, encodeValue(todo.make())));
          } else if (todo.do === 'delete') fields.delete(todo.key);
          else if (todo.do === 'spoil') fields.set(todo.key, ':[["URL",1],"%"]');
          else if (todo.do === 'forget') cache.forget(id);
          else now = NOW + todo.to;

          for (const [each, stored] of sessions) {
            const corrupt = { cached: 0, fresh: 0 };
            const layout = cache.layoutOf(each, stored, now, () => corrupt.cached++);
            const fresh = encodePayload(stored, now, () => corrupt.fresh++);
            expect(contents(payloadOf(layout, 'mark'))).toBe(contents(fresh));
            expect(corrupt.cached).toBe(corrupt.fresh);
            expect([...layout.slots.keys()]).toEqual(
              [...stored.keys()].filter((name) => stored.get(name) !== ':[["URL",1],"%"]'),
            );
          }
        }
      },
    ),
    { numRuns: runs(500) },
  );
});

describe('a cache of layouts', () => {
  const read = (cache: ReturnType<typeof createLayoutCache>, id: string, fields: Record<string, string>): Layout =>
    cache.layoutOf(id, new Map(Object.entries(fields)), NOW, fail);

  it('returns the same layout for the same text, and only then', () => {
    const cache = createLayoutCache();
    const first = read(cache, 'id', { a: ':["x"]', b: ':[2]' });
    expect(read(cache, 'id', { a: ':["x"]', b: ':[2]' })).toBe(first);
    expect(read(cache, 'id', { b: ':[2]', a: ':["x"]' })).toBe(first);
    for (const other of [{ a: ':["y"]', b: ':[2]' }, { a: ':["x"]' }, { a: ':["x"]', b: ':[2]', c: ':[3]' }]) {
      expect(read(cache, 'id', { a: ':["x"]', b: ':[2]' }).slots.size).toBe(2);
      const layout = read(cache, 'id', other);
      expect(Object.fromEntries([...layout.slots].map(([name, { field }]) => [name, field]))).toEqual(other);
    }
    expect(read(cache, 'other', { a: ':["x"]', b: ':[2]' })).not.toBe(first);
  });

  it('parses only the fields that changed', () => {
    const hats = encodeField(undefined, encodeValue(['hat']));
    const cache = createLayoutCache();
    const first = read(cache, 'id', { a: hats, b: ':[2]' });
    const before = first.flat.length;
    const second = read(cache, 'id', { a: hats, b: ':[3]' });
    expect(second.slots.get('a')).toBe(first.slots.get('a'));
    expect(second.flat.length - before).toBe(first.slots.get('b')!.nodes);
    // The first layout still has its own values.
    expect(contents(payloadOf(first, 'mark'))).toContain('[2]');
  });

  it('stays small when one field changes again and again', () => {
    const cache = createLayoutCache();
    const sizes = Array.from(
      { length: 1000 },
      (_, count) => read(cache, 'id', { a: ':["x"]', n: `:[${count}]` }).flat.length,
    );
    const { slots } = read(cache, 'id', { a: ':["x"]', n: ':[0]' });
    const used = [...slots.values()].reduce((sum, { nodes }) => sum + nodes, 0);
    expect(Math.max(...sizes)).toBeLessThan(4 * used);
  });

  it('keeps as many sessions as fit, and evicts those that were not read for the longest time', () => {
    const field = ':["0123456789"]';
    const [slot] = read(createLayoutCache(), 'id', { a: field }).slots.values();
    // The two positions that are empty count as well.
    const cache = createLayoutCache(10 * Math.ceil((slot!.bytes * (slot!.nodes + 2)) / (slot!.nodes + 1)));
    const ids = Array.from({ length: 20 }, (_, index) => `session ${index}`);
    const layouts = new Map(ids.map((id) => [id, read(cache, id, { a: field })]));
    const isCached = (id: string): boolean => read(cache, id, { a: field }) === layouts.get(id);
    // Read first those that are kept: a read of any other evicts one.
    expect(ids.slice(10).map(isCached)).toEqual(ids.slice(10).map(() => true));
    expect(isCached('session 10')).toBe(true);
    expect(ids.slice(0, 9).map(isCached)).toEqual(ids.slice(0, 9).map(() => false));
    expect(['session 10', 'session 11'].map(isCached)).toEqual([true, false]);
  });

  it('does not keep a session that is larger than all of it, and evicts no other for it', () => {
    const cache = createLayoutCache(1000);
    const small = read(cache, 'small', { a: ':[1]' });
    const large = read(cache, 'large', { a: `:["${'x'.repeat(1000)}"]` });
    expect(read(cache, 'large', { a: `:["${'x'.repeat(1000)}"]` })).not.toBe(large);
    expect(read(cache, 'small', { a: ':[1]' })).toBe(small);
  });
});
