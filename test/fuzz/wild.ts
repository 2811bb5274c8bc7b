import { fromEnv } from '@coatcheck/session-core';
import fc from 'fast-check';
import { attempt, SECRET } from './target.ts';

/** What getters in this file throw. */
export const OWN: Error = new Error('thrown by a getter');

/** As `attempt`; what code of the caller's own throws may come through as it is. */
export function attemptWild<Result>(work: () => Promise<Result> | Result): Promise<Result | Error> {
  return attempt(async () => {
    try {
      return await work();
    } catch (error) {
      if (error === OWN) return OWN;
      throw error;
    }
  });
}

const refuse = (): never => {
  throw OWN;
};

// Made anew for every case, because what is done to one must not be seen by the next.
const makers: (() => unknown)[] = [
  ...[undefined, null, true, false, 0, -0, -1, 0.5, 1, 60, 1e9, 2 ** 40, 1e21, NaN, Infinity, -Infinity].map(
    (it) => () => it,
  ),
  ...['', ' ', 'x', '1', '-1', '0x10', 'true', 'false', 'NaN', '1e3', '\0', '\uD800', 'é', 'a;b', 'a b', '/'].map(
    (it) => () => it,
  ),
  ...[SECRET, `redis://user:${SECRET}@127.0.0.1:1`, `https://user:${SECRET}@127.0.0.1:1`, `127.0.0.1:${SECRET}`].map(
    (it) => () => it,
  ),
  () => SECRET.repeat(10_000),
  () => 10n,
  () => Symbol(SECRET),
  () => Symbol.iterator,
  () => () => SECRET,
  () => URL,
  () => new Date(),
  () => new Date(NaN),
  () => new Map([[SECRET, SECRET]]),
  () => new Set([SECRET]),
  () => new WeakMap(),
  () => /x/,
  () => new Error(SECRET),
  () => Promise.resolve(SECRET),
  () => new URL('http://127.0.0.1/'),
  () => new Uint8Array(3),
  () => Buffer.from(SECRET),
  () => Object('text'),
  () => Object(5),
  () => new Proxy({}, {}),
  () => new Proxy([], {}),
  () => new Proxy({}, { get: refuse, ownKeys: refuse, getPrototypeOf: refuse }),
  () => Object.create(null),
  () => Object.create({ ttl: 5 }),
  () => Object.assign(Object.create(null), { ttl: 5 }),
  () => JSON.parse('{"__proto__":{"ttl":1,"url":"x"}}'),
  () => ({ constructor: SECRET }),
  () => ({ constructor: { prototype: { ttl: 1 } } }),
  () => ({ toString: 1, valueOf: 1 }),
  () => ({ toString: () => SECRET }),
  () => ({ toJSON: () => 5 }),
  () => ({ [Symbol.toPrimitive]: () => 5 }),
  () => Object.defineProperty({}, 'ttl', { get: refuse, enumerable: true }),
  // oxlint-disable-next-line unicorn/no-thenable -- that is what may come
  () => ({ then: (done: (value: string) => void) => done(SECRET) }),
  () => ({ host: SECRET }),
  () => ({ host: '127.0.0.1', port: SECRET }),
  () => ({ name: SECRET, nodes: [undefined] }),
  () => ({ fromEnv: 'A_VARIABLE' }),
  () => ({ fromEnv: '' }),
  () => ({ fromEnv: 5 }),
  () => ({ fromEnv: 'A_VARIABLE', more: () => SECRET }),
  () => fromEnv('A_VARIABLE'),
  () => [],
  () => [undefined],
  () => [null],
  // oxlint-disable-next-line no-sparse-arrays
  () => [, SECRET],
  () => [[]],
  () => [SECRET, SECRET],
  () => ['127.0.0.1:1', { host: SECRET, port: 1 }],
  () => Array.from({ length: 5 }),
  () => Object.assign([SECRET], { more: 1 }),
  () => Object.freeze({ ttl: 5 }),
  () => {
    const circle: Record<string, unknown> = {};
    return Object.assign(circle, { circle });
  },
  () => {
    const circle: unknown[] = [];
    circle.push(circle);
    return circle;
  },
  () => {
    let deep: unknown = SECRET;
    for (let level = 0; level < 20_000; level++) deep = level % 2 ? [deep] : { deep };
    return deep;
  },
];

const { any } = fc.letrec<{ any: () => unknown }>((tie) => ({
  any: fc.oneof(
    { maxDepth: 2, depthSize: 'small' },
    { weight: 6, arbitrary: fc.constantFrom(...makers) },
    fc.string({ maxLength: 12 }).map((text) => () => text),
    fc.double().map((number) => () => number),
    fc.integer({ min: -100, max: 100_000 }).map((number) => () => number),
    fc.array(tie('any'), { maxLength: 3 }).map((items) => () => items.map((make) => make())),
    fc
      .array(fc.tuple(fc.constantFrom('host', 'port', 'name', 'nodes', 'ca', 'key', '__proto__', 'x'), tie('any')), {
        maxLength: 3,
      })
      .map((pairs) => () => Object.fromEntries(pairs.map(([key, make]) => [key, make()]))),
  ),
}));

/** Makes anything that JavaScript can put where something else is expected. */
export const anything: fc.Arbitrary<() => unknown> = any;
