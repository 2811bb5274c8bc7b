import fc from 'fast-check';

/** How often a property is checked. `PROPERTY_RUNS=100 vitest run ...` multiplies it by 100. */
export function runs(usual: number): number {
  return usual * Number(process.env['PROPERTY_RUNS'] ?? 1);
}

const oddText = [
  '',
  '__proto__',
  'constructor',
  'toJSON',
  'then',
  '0',
  '-1',
  '4294967295',
  '</script>',
  '\\u2028',
  '\u2028\u2029',
  '\0\b\v\u001F\u007F',
  '"',
  '\\',
  '\uD800',
  '\uDC00a',
  '😀',
  '~',
  '#',
];

// fast-check's unit `binary` would take 1.5 seconds to build a table of all code points.

/** Any code point except surrogates. */
export const codePoint: fc.Arbitrary<string> = fc
  .integer({ min: 0, max: 0x10ffff - 0x800 })
  .map((code) => String.fromCodePoint(code < 0xd800 ? code : code + 0x800));

export const text: fc.Arbitrary<string> = fc.oneof(
  fc.constantFrom(...oddText),
  fc.string({ unit: 'grapheme', maxLength: 8 }),
  fc.string({ unit: codePoint, maxLength: 4 }),
);

/** Session keys: any string that is not empty. */
export const sessionKey: fc.Arbitrary<string> = text.filter((key) => key !== '');

// devalue refuses `__proto__` as the key of an object. A backslash can make JSON.parse take one key for another:
// https://github.com/nodejs/node/issues/63785
const propertyKey = text.filter((key) => key !== '__proto__' && !key.includes('\\'));

const number = fc.oneof(
  fc.constantFrom(0, -0, NaN, Infinity, -Infinity, 1e21, 5e-324, -1, 2 ** 53),
  fc.integer(),
  fc.double(),
);

const primitive: fc.Arbitrary<unknown> = fc.oneof(
  text,
  number,
  fc.constantFrom(undefined, null, true, false),
  fc.bigInt({ min: -(2n ** 70n), max: 2n ** 70n }),
);

type ViewKind = new (buffer: ArrayBuffer, offset?: number, length?: number) => ArrayBufferView;

const viewKinds: ViewKind[] = [
  Int8Array,
  Uint8Array,
  Uint8ClampedArray,
  Int16Array,
  Uint16Array,
  Int32Array,
  Uint32Array,
  Float32Array,
  Float64Array,
  BigInt64Array,
  BigUint64Array,
  DataView,
  ...('Float16Array' in globalThis ? [globalThis['Float16Array'] as ViewKind] : []),
];

const leaf: fc.Arbitrary<() => unknown> = fc.oneof(
  fc.oneof(fc.date(), fc.constant(new Date(NaN))).map((date) => () => new Date(date)),
  fc.constantFrom(/a/, /[<\n/]\u2028/giu, new RegExp(''), new RegExp('\n'), /(?<n>x)|\p{L}/dv).map((it) => () => it),
  fc.tuple(fc.domain(), text, text, text).map(([host, path, query, fragment]) => () => {
    const url = new URL(`https://${host}`);
    return Object.assign(url, { pathname: path, search: query, hash: fragment });
  }),
  fc.array(fc.tuple(text, text), { maxLength: 3 }).map((pairs) => () => new URLSearchParams(pairs)),
  fc.oneof(fc.string(), number, fc.boolean(), fc.bigInt()).map((value) => () => Object(value) as unknown),
  ...temporal(),
);

function temporal(): fc.Arbitrary<() => unknown>[] {
  if (!('Temporal' in globalThis)) return [];
  const { Temporal } = globalThis as unknown as { Temporal: Record<string, { from(text: string): unknown }> };
  const texts = {
    Duration: 'P1Y2M3DT4H',
    Instant: '2024-02-29T12:00:00.123456789Z',
    PlainDate: '2024-02-29',
    PlainTime: '12:00:01',
    PlainDateTime: '2024-02-29T12:00:01',
    PlainMonthDay: '02-29',
    PlainYearMonth: '2024-02',
    ZonedDateTime: '2024-02-29T12:00:00+01:00[Europe/Berlin]',
  };
  return [
    fc.constantFrom(...Object.entries(texts)).map(
      ([kind, iso]) =>
        () =>
          Temporal[kind]!.from(iso),
    ),
  ];
}

/** Part of a value: a primitive, or the number of an object in the graph, modulo the count of objects. */
type Part = { primitive: unknown } | { object: number };

const part: fc.Arbitrary<Part> = fc.oneof(
  primitive.map((value) => ({ primitive: value })),
  fc.nat(30).map((object) => ({ object })),
);

/** Creates an object in two steps, so that objects can contain each other and themselves. */
interface Maker {
  create(): unknown;
  fill?(object: never, resolve: (part: Part) => unknown): void;
}

const maker: fc.Arbitrary<Maker> = fc.oneof(
  fc.array(fc.option(part, { nil: undefined, freq: 4 }), { maxLength: 5 }).map((parts) => ({
    create: () => [],
    fill(array: unknown[], resolve: (part: Part) => unknown) {
      array.length = parts.length;
      for (const [index, item] of parts.entries()) if (item) array[index] = resolve(item);
    },
  })),
  fc.array(fc.tuple(fc.nat(3000), part), { maxLength: 3 }).map((parts) => ({
    create: () => [],
    fill(array: unknown[], resolve: (part: Part) => unknown) {
      array.length = 3001;
      for (const [index, item] of parts) array[index] = resolve(item);
    },
  })),
  fc.tuple(fc.boolean(), fc.array(fc.tuple(propertyKey, part), { maxLength: 4 })).map(([isNull, parts]) => ({
    create: () => (isNull ? Object.create(null) : {}) as unknown,
    fill(object: Record<string, unknown>, resolve: (part: Part) => unknown) {
      for (const [key, item] of parts) object[key] = resolve(item);
    },
  })),
  fc.array(fc.tuple(part, part), { maxLength: 4 }).map((parts) => ({
    create: () => new Map(),
    fill(map: Map<unknown, unknown>, resolve: (part: Part) => unknown) {
      for (const [key, item] of parts) map.set(resolve(key), resolve(item));
    },
  })),
  fc.array(part, { maxLength: 4 }).map((parts) => ({
    create: () => new Set(),
    fill(set: Set<unknown>, resolve: (part: Part) => unknown) {
      for (const item of parts) set.add(resolve(item));
    },
  })),
  leaf.map((create) => ({ create })),
);

/** A few views of one buffer, each of the whole buffer or of a part. */
const views = fc
  .tuple(fc.uint8Array({ maxLength: 40 }), fc.array(fc.tuple(fc.nat(20), fc.nat(5), fc.nat(5)), { maxLength: 3 }))
  .map(([bytes, specs]) => () => {
    const buffer = bytes.slice().buffer;
    const made = specs.map(([kind, skip, length]) => {
      const View = viewKinds[kind % viewKinds.length]!;
      const unit = 'BYTES_PER_ELEMENT' in View ? Number(View.BYTES_PER_ELEMENT) : 1;
      const room = Math.floor(buffer.byteLength / unit);
      const first = Math.min(skip, room);
      if (length === 5 && buffer.byteLength % unit === 0) return new View(buffer);
      return new View(buffer, first * unit, Math.min(length, room - first));
    });
    return [buffer, ...made];
  });

/**
 * Values of every kind that devalue supports. They share objects, and may contain themselves. Each call creates new ones.
 */
export const values: fc.Arbitrary<() => unknown[]> = fc
  .tuple(
    fc.array(maker, { minLength: 1, maxLength: 8 }),
    fc.option(views),
    fc.array(part, { minLength: 1, maxLength: 5 }),
  )
  .map(([makers, makeViews, parts]) => () => {
    const objects: unknown[] = [...makers.map((it) => it.create()), ...(makeViews?.() ?? [])];
    const resolve = (item: Part): unknown =>
      'object' in item ? objects[item.object % objects.length] : item.primitive;
    makers.forEach((it, index) => it.fill?.(objects[index] as never, resolve));
    return parts.map(resolve);
  });

/** Changes an object in place, as a page might, so that its value differs. Returns false if that is not possible. */
export function changeInPlace(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  if (Array.isArray(value)) value.push('changed');
  else if (value instanceof Map) value.set(`changed ${value.size}`, true);
  else if (value instanceof Set) value.add(`changed ${value.size}`);
  else if (value instanceof Date) value.setTime(Number.isNaN(value.getTime()) ? 0 : (value.getTime() + 1) % 8e15);
  else if (value instanceof URL) value.hash += 'changed';
  else if (value instanceof URLSearchParams) value.append('changed', '1');
  else if (value instanceof ArrayBuffer || ArrayBuffer.isView(value)) {
    const bytes = value instanceof ArrayBuffer ? new Uint8Array(value) : new Uint8Array(value.buffer);
    if (bytes.length === 0) return false;
    bytes[0]! ^= 1;
  } else if ([Object.prototype, null].includes(Object.getPrototypeOf(value) as never)) {
    (value as Record<string, unknown>)[`changed ${Object.keys(value).length}`] = true;
  } else return false;
  return true;
}

/** An entry of a session as Astro keeps it in memory. */
export interface AstroEntry {
  data: unknown;
  expires: number | undefined;
}

/** A session as Astro keeps it in memory. */
export const astroSession: fc.Arbitrary<Map<string, AstroEntry>> = fc
  .tuple(
    values,
    fc.uniqueArray(sessionKey, { minLength: 5, maxLength: 5 }),
    fc.array(fc.option(fc.integer({ min: Date.now() + 3_600_000, max: 8e15 }), { nil: undefined }), { minLength: 5 }),
  )
  .map(
    ([make, keys, expiries]) =>
      new Map(make().map((data, index) => [keys[index]!, { data, expires: expiries[index] }])),
  );
