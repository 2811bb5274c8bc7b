import type { Entry } from '../fuzz/damage.ts';

/** The first moment of the year 2100: what ends then has not ended when a test reads it. */
export const FAR: number = Date.UTC(2100, 0, 1);

const coat = { size: 'M', sold: false };
const folder: Record<string, unknown> = { name: 'root' };
folder['parent'] = folder;
// oxlint-disable-next-line no-sparse-arrays -- a hole is no undefined
const basket = ['hat', 2, [coat.size], , { gift: true }];

/**
 * The session that is recorded, by key. Files that were recorded before name those keys that they hold, so entries may be added; none
 * may be changed or taken away.
 */
export const values: ReadonlyMap<string, Entry> = new Map(
  [
    { key: 'user', data: { name: 'Ada', 'born in': 1815, nickname: undefined } },
    { key: 'visits', data: 42 },
    { key: 'text', data: 'Grüße, 世界 😀 </script> "\\" \u2028\0 and enough of it that no backend takes it for short' },
    { key: 'no text', data: '' },
    { key: 'yes', data: true },
    { key: 'basket', data: basket },
    {
      key: 'prices',
      data: new Map<unknown, unknown>([
        ['hat', 19.99],
        [{ like: 'this' }, new Map()],
      ]),
    },
    { key: 'seen', data: new Set<unknown>(['hat', 1, null]) },
    { key: 'since', data: new Date(1_000_000_000_000) },
    { key: 'no date', data: new Date(NaN) },
    { key: 'big', data: 2n ** 70n },
    { key: 'address', data: new URL('https://shop.example/hats?size=M#top') },
    { key: 'pattern', data: /^hat\/\d+$/giu },
    { key: 'bytes', data: new Uint8Array([0, 1, 127, 128, 255]) },
    { key: 'undefined', data: undefined },
    { key: 'null', data: null },
    { key: 'NaN', data: NaN },
    { key: 'infinity', data: -Infinity },
    { key: '-0', data: -0 },
    { key: 'the same twice', data: [coat, coat] },
    { key: 'in itself', data: folder },
    { key: 'without a prototype', data: Object.assign(Object.create(null) as object, { name: 'Ada' }) },
    { key: 'half a character', data: 'one half: \uD83D' },
    { key: 'half a key \uDE00', data: 1 },
    { key: '__proto__', data: { admin: true } },
    { key: 'constructor', data: 2 },
    { key: '"quoted"', data: 3 },
    { key: '~sealed?', data: 4 },
    { key: 'a\0b', data: 5 },
    { key: '😀', data: 6 },
    { key: '0', data: 7 },
    { key: 'flash', data: 'Welcome', expires: FAR },
    { key: '"~\0\uD83D', data: new Map([['until', 2100n]]), expires: FAR + 1000 },
  ].map(({ key, data, expires }) => [key, { data, expires }]),
);
