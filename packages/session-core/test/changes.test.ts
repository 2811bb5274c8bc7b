import * as devalue5 from 'devalue';
import * as devalue6 from 'devalue-6';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { payloadOf, resultOf, savedSession, type MarkResolver, type ReadResult } from '../src/astro/changes.ts';
import { createLayoutCache, type Layout } from '../src/astro/layout.ts';
import { encodeField } from '../src/codec/field.ts';
import { resultIn, selfContainedPayloadOf } from '../src/astro/unidentified.ts';
import { createComparison, extractValue, type Flat, loadDevalue } from '../src/codec/flat.ts';
import { decodePayload } from '../src/codec/payload.ts';
import { encodeValue } from '../src/codec/value.ts';
import { type AstroEntry, astroSession, changeInPlace, runs, values } from './support/values.ts';

// The same as Astro adds to devalue. https://github.com/withastro/astro/blob/main/packages/astro/src/core/session/runtime.ts
const reducers = { URL: (value: unknown) => value instanceof URL && value.href };
const revivers = { URL: (href: string) => new URL(href) };

beforeAll(() => loadDevalue());

const at = { wall: 1, monotonic: 2 };

function toFields(entries: Map<string, AstroEntry>): Map<string, string> {
  return new Map([...entries].map(([key, { data, expires }]) => [key, encodeField(expires, encodeValue(data))]));
}

function fail(): never {
  throw new Error('A field is corrupt, or a mark is unknown.');
}

function layoutOf(fields: Map<string, string>): Layout {
  return createLayoutCache().layoutOf('id', fields, Date.now(), fail);
}

/** Reads a session as the driver does, and returns the payload and a resolver for its mark. */
type Read = (fields: Map<string, string>) => { flat: Flat; marks: MarkResolver };

const identified: Read = (fields) => {
  const layout = layoutOf(fields);
  const results = new Map<string, ReadResult>([['nonce1', resultOf('test', 'id', at, layout)]]);
  const marks = { find: (mark: unknown) => results.get(mark as string), onUnknown: fail };
  return { flat: payloadOf(layout, 'nonce1'), marks };
};

const unidentified: Read = (fields) => ({
  flat: selfContainedPayloadOf(layoutOf(fields), 'nonce', 'id', at),
  marks: { find: (mark, flat) => resultIn('test', flat, mark as unknown[], 'nonce'), onUnknown: fail },
});

describe.each([
  { name: 'devalue 5 in Astro, a request with identity', devalue: devalue5, read: identified },
  { name: 'devalue 6 in Astro, a request with identity', devalue: devalue6, read: identified },
  { name: 'devalue 5 in Astro, a request without identity', devalue: devalue5, read: unidentified },
  { name: 'devalue 6 in Astro, a request without identity', devalue: devalue6, read: unidentified },
])('$name', ({ devalue: { stringify, unflatten }, read }) => {
  const hydrate = (flat: Flat) => unflatten(flat, revivers) as Map<string, AstroEntry>;

  it('saves nothing if the request changed nothing', () => {
    fc.assert(
      fc.property(astroSession, (entries) => {
        const fields = toFields(entries);
        const { flat, marks } = read(fields);
        const { entries: saved, snapshots } = savedSession('test', stringify(hydrate(flat), reducers), marks);
        expect(snapshots.map(({ id, at: readAt }) => [id, readAt])).toEqual([['id', at]]);
        expect([...snapshots[0]!.keys].map(([key, { expires }]) => [key, expires])).toEqual(
          [...entries].map(([key, { expires }]) => [key, expires]),
        );
        for (const [key, entry] of saved) {
          expect([key, entry.modified, entry.encoded()]).toEqual([key, false, fields.get(key)]);
        }
        expect(saved.size).toBe(fields.size);
      }),
      { numRuns: runs(1000) },
    );
  });

  it('saves a value that was changed in place, and no other', () => {
    fc.assert(
      fc.property(astroSession, fc.nat(), (entries, pick) => {
        const { flat, marks } = read(toFields(entries));
        const loaded = hydrate(flat);
        const [key, { data }] = [...loaded][pick % loaded.size]!;
        fc.pre(changeInPlace(data));
        const changed = encodeValue(data);
        const { entries: saved } = savedSession('test', stringify(loaded, reducers), marks);
        for (const [name, entry] of saved) expect([name, entry.modified]).toEqual([name, name === key]);
        expect(saved.get(key)!.encoded()).toBe(encodeField(entries.get(key)!.expires, changed));
      }),
      { numRuns: runs(500) },
    );
  });

  it.each<{ what: string; change(session: Map<string, AstroEntry>): void; modified: string[] }>([
    {
      what: 'a value that was also set under another key, and the original stays as it is',
      change: (session) => session.set('copy', { data: session.get('cart')!.data, expires: undefined }),
      modified: ['copy'],
    },
    {
      what: 'a value whose keys are in another order',
      change(session) {
        const user = session.get('user')!.data as Record<string, unknown>;
        const { name } = user;
        delete user['name'];
        user['name'] = name;
      },
      modified: ['user'],
    },
    {
      what: 'a value in which one object is now referenced twice',
      change(session) {
        const cart = session.get('cart')!.data as unknown[];
        cart[1] = cart[0];
      },
      modified: ['cart'],
    },
    {
      what: 'a value that now contains itself',
      change(session) {
        const cart = session.get('cart')!.data as unknown[];
        cart[0] = cart;
      },
      modified: ['cart'],
    },
    {
      what: 'a value in which an object that was referenced twice is now two equal ones',
      change(session) {
        const pair = session.get('pair')!.data as unknown[];
        pair[1] = structuredClone(pair[0]);
      },
      modified: ['pair'],
    },
    {
      what: 'nothing if a value that contains itself was only read',
      change: () => undefined,
      modified: [],
    },
    {
      what: 'a number that became a string',
      change(session) {
        (session.get('user')!.data as Record<string, unknown>)['id'] = '1';
      },
      modified: ['user'],
    },
    {
      what: 'a zero that became negative',
      change(session) {
        (session.get('user')!.data as Record<string, unknown>)['zero'] = -0;
      },
      modified: ['user'],
    },
    {
      what: 'a Date inside a value',
      change: (session) => void (session.get('dates')!.data as Date[])[0]!.setTime(5),
      modified: ['dates'],
    },
    {
      what: 'an array that lost its last item',
      change: (session) => void (session.get('cart')!.data as unknown[]).pop(),
      modified: ['cart'],
    },
    {
      what: 'an array that became an object',
      change(session) {
        (session.get('user')!.data as Record<string, unknown>)['list'] = {};
      },
      modified: ['user'],
    },
  ])('saves $what', ({ change, modified }) => {
    const hat = { sku: 'hat' };
    const loop: unknown[] = [];
    loop.push(loop);
    const data = {
      user: { name: 'Ada', id: 1, zero: 0, list: [] },
      cart: [{ sku: 'hat' }, { sku: 'hat' }],
      pair: [hat, hat],
      dates: [new Date(1), new Date(2)],
      loop,
    };
    const entries = new Map(Object.entries(data).map(([key, value]) => [key, { data: value, expires: undefined }]));
    const { flat, marks } = read(toFields(entries));
    const loaded = hydrate(flat);
    change(loaded);
    const { entries: saved } = savedSession('test', stringify(loaded, reducers), marks);
    expect([...saved].filter(([, entry]) => entry.modified).map(([key]) => key)).toEqual(modified);
  });

  it('does not change the nodes of a layout', () => {
    fc.assert(
      fc.property(astroSession, (entries) => {
        const { flat } = read(toFields(entries));
        for (const node of flat) if (typeof node === 'object') Object.freeze(node);
        hydrate(flat);
      }),
      { numRuns: runs(500) },
    );
  });
});

it('comparing two values without encoding them never contradicts their encodings', () => {
  let told = 0;
  const position = (flat: Flat): number => (flat[(flat[0] as number[])[2]!] as { data: number }).data;
  const flatten = (data: unknown): Flat =>
    JSON.parse(devalue5.stringify(new Map([['key', { data }]]), reducers)) as Flat;
  fc.assert(
    fc.property(values, values, fc.boolean(), (make, makeOther, isChanged) => {
      const one = make();
      const other = isChanged ? make() : makeOther();
      if (isChanged) changeInPlace(other[0]);
      const [flat, otherFlat] = [flatten(one), flatten(other)];
      const isSame = createComparison(flat, otherFlat)(position(flat), position(otherFlat));
      if (isSame === undefined) return;
      told++;
      expect(isSame).toBe(extractValue(flat, position(flat)) === extractValue(otherFlat, position(otherFlat)));
    }),
    { numRuns: runs(2000) },
  );
  expect(told).toBeGreaterThan(runs(200));
});

it('two requests that read the same layout have marks of their own', () => {
  const layout = layoutOf(new Map([['cart', ':[[1],"hat"]']]));
  const marks = [
    payloadOf(layout, 'first'),
    payloadOf(layout, 'second'),
    selfContainedPayloadOf(layout, 'n', 'id', at),
  ];
  const decoded = marks.map((flat) => decodePayload('test', flat));
  const markOf = ({ flat, entries }: (typeof decoded)[number]) => flat[entries.get('cart')!.markAt!];
  expect(decoded.slice(0, 2).map(markOf)).toEqual(['first', 'second']);
  expect(markOf(decoded[2]!)).toBeInstanceOf(Array);
  expect(layout.flat.slice(0, 2)).toEqual([undefined, undefined]);
});

describe('an unknown mark', () => {
  const marks: MarkResolver = { find: () => undefined, onUnknown: fail };

  it.each([
    ['of a request that lost its identity', 'nonce1'],
    ['of another process', [5, 5, 5, 5]],
    ['of a type that no driver writes', 7],
  ])('%s is reported once, and its entries are saved', (_what, mark) => {
    let reports = 0;
    const flat = [['Map', 1, 2, 3, 2], 'a', { data: 4, expires: -1, _: 6 }, 'b', 'value', 'nonce', mark];
    const { entries, snapshots } = savedSession('test', flat, { ...marks, onUnknown: () => reports++ });
    expect([...entries.values()].map(({ modified }) => modified)).toEqual([true, true]);
    expect(snapshots).toEqual([]);
    expect(reports).toBe(1);
  });

  it('does not exist in an entry that the request set', () => {
    const flat = [['Map', 1, 2], 'a', { data: 3, expires: -1 }, 'value'];
    expect(savedSession('test', flat, marks).entries.get('a')!.modified).toBe(true);
  });
});

it('a session that was read several times has the keys of all reads', () => {
  const results = new Map<string, ReadResult>();
  const marks: MarkResolver = { find: (mark) => results.get(mark as string), onUnknown: fail };
  const read = (mark: string, readAt: number, fields: Record<string, string>) => {
    const layout = layoutOf(new Map(Object.entries(fields)));
    results.set(mark, resultOf('test', 'id', { wall: readAt, monotonic: readAt }, layout));
    return devalue5.unflatten(payloadOf(layout, mark), revivers) as Map<string, AstroEntry>;
  };
  const later = read('second', 2, { a: '9999999999999:[1]', b: ':[1]' });
  const earlier = read('first', 1, { a: ':[1]', flash: '9999999999999:[1]' });
  const merged = new Map([...later, ['flash', earlier.get('flash')!]]);
  const { snapshots } = savedSession('test', devalue5.stringify(merged, reducers), marks);
  expect(snapshots).toHaveLength(1);
  expect(snapshots[0]!.at.monotonic).toBe(1);
  expect(Object.fromEntries([...snapshots[0]!.keys].map(([key, { expires }]) => [key, expires]))).toEqual({
    a: undefined,
    b: undefined,
    flash: 9999999999999,
  });
});

it('decoding a payload keeps the position of each value and of each mark', () => {
  const { entries } = decodePayload('test', [['Map', 1, 2], 'a', { data: 3, expires: -1, _: 4 }, 'value', 'mark']);
  expect(entries.get('a')).toMatchObject({ dataAt: 3, markAt: 4, expires: undefined });
});
