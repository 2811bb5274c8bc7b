import { same } from './assert.ts';
import { call, change, fields, type StoreTests } from './store-suite.ts';

import type { Fields } from '../contract/store.ts';

/** What is written is what is read. */
export function testFields({ test }: StoreTests): void {
  test(
    'a key that was never written reads as null',
    'Answer null, and not an empty Map, when there is no record.',
    async ({ store, key }) => {
      same(await store.read(key, call()), null);
    },
  );

  test(
    'fields come back byte for byte, whatever their names and values',
    'Take names and values as opaque text. `__proto__` is a name like any other, so no object of JavaScript can hold them. V8 parses ' +
      'JSON objects with backslashes in their keys wrongly now and then (nodejs/node#63785): encode these characters, or keep a list of pairs.',
    async ({ store, key }) => {
      const all: Fields = new Map([
        ['cart', ':[{"hat":1},2]'],
        ['__proto__', ':["a"]'],
        ['constructor', ':1'],
        ['\\', ':1'],
        ['\\\\"', ':2'],
        ['\\u0022', ':3'],
        ['%5C%00', ':4'],
        ['with space\n\t\u0001 and "quotes" \'single\' \\ 🧥 é 漢', ':["\u2028 \u0001 🧥 é 漢 \\"\'"]'],
        ['0', ':[0]'],
        ['00', ':[" "]'],
        ['null', ':null'],
        ['spaces at the end', ':  '],
        ['$.path[0]', ':'],
        ['{braces}', ':{"a":{"b":[]}}'],
      ]);
      same(await store.patch(key, change({ set: all }), call()), 'applied');
      same(await store.read(key, call()), all);
      same(await store.patch(key, change({ set: fields({ more: ':1' }) }), call()), 'applied');
      same(await store.read(key, call()), new Map([...all, ['more', ':1']]));
      same(await store.patch(key, change({ unset: [...all.keys()] }), call()), 'applied');
      same(await store.read(key, call()), fields({ more: ':1' }));
    },
  );

  test(
    'a value of 100,000 characters comes back whole',
    'Choose a type of column, or of value, that holds a session as large as sites make them.',
    async ({ store, key }) => {
      const large = fields({ large: `:["${'x'.repeat(100_000)}"]` });
      await store.patch(key, change({ set: large }), call());
      same(await store.read(key, call()), large);
    },
  );

  test(
    'one change may write 1,000 fields',
    'Hand the fields over as one value (an array, a JSON text) where the backend limits the parameters of a statement.',
    async ({ store, key }) => {
      const many: Fields = new Map(Array.from({ length: 1000 }, (_, index) => [`field-${index}`, `:${index}`]));
      await store.patch(key, change({ set: many }), call());
      same(await store.read(key, call()), many);
      await store.patch(key, change({ unset: [...many.keys()].slice(1) }), call());
      same(await store.read(key, call()), fields({ 'field-0': ':0' }));
    },
  );

  test(
    'names that differ in case, spaces, normal form or a late character are different fields',
    'Compare names by their bytes: a binary collation, a column as wide as the longest name, and no trimming.',
    async ({ store, key }) => {
      const long = 'n'.repeat(2000);
      const names = ['name', 'Name', 'NAME', ' name', 'name ', 'name\n', 'naïve', 'nai\u0308ve', 'ﬁ', 'fi', 'ss', 'ß'];
      names.push(`${long}a`, `${long}b`);
      const all: Fields = new Map(names.map((name, index) => [name, `:${index}`]));
      await store.patch(key, change({ set: all }), call());
      same(await store.read(key, call()), all);
      for (const [name, value] of all) {
        const expect = new Map([[name, value]]);
        same(await store.patch(key, change({ set: new Map([[name, `${value}!`]]), expect }), call()), 'applied', name);
      }
      same(await store.read(key, call()), new Map([...all].map(([name, value]) => [name, `${value}!`])));
    },
  );

  test(
    'keys that differ only in the case of a letter are different records',
    'Compare keys by their bytes: they are hashes in base64url, where `a` and `A` are different digits.',
    async ({ store, key }) => {
      const index = key.search(/[a-z][^a-z]*$/);
      const other = key.slice(0, index) + key[index]!.toUpperCase() + key.slice(index + 1);
      await store.patch(key, change({ set: fields({ a: ':1' }) }), call());
      same(await store.read(other, call()), null);
      await store.destroy(other, 60_000, call());
      same(await store.read(key, call()), fields({ a: ':1' }));
    },
  );

  test(
    'a change of some fields leaves the others alone',
    'Write the fields of the change, and not the record that somebody read before.',
    async ({ store, key }) => {
      await store.patch(key, change({ set: fields({ a: ':1', b: ':2', c: ':3' }) }), call());
      await store.patch(key, change({ set: fields({ b: ':4' }), unset: ['c', 'unknown'] }), call());
      same(await store.read(key, call()), fields({ a: ':1', b: ':4' }));
    },
  );

  test(
    'a record without fields is a record',
    'Keep the record when its last field goes: a session that is empty is not one that was removed.',
    async ({ store, key }) => {
      await store.patch(key, change({ set: fields({ a: ':1' }) }), call());
      await store.patch(key, change({ unset: ['a'] }), call());
      same(await store.read(key, call()), new Map());
      same(await store.patch(key, change({ set: fields({ b: ':1' }), mustExist: true }), call()), 'applied');
    },
  );

  test(
    'what a reader does to its fields changes nothing for others',
    'Return a Map of its own to every reader.',
    async ({ store, key }) => {
      const written = fields({ a: ':1' });
      await store.patch(key, change({ set: written }), call());
      written.set('a', ':2');
      (await store.read(key, call()))?.clear();
      same(await store.read(key, call()), fields({ a: ':1' }));
    },
  );
}
