import { same } from './assert.ts';
import { call, change, fields, type StoreTests } from './store-suite.ts';

import type { Fields } from '../contract/store.ts';

/** Tests that fields are read back as they were written. */
export function testFields({ test }: StoreTests): void {
  test(
    'a key that was never written reads as null',
    'Return null, not an empty Map, if there is no record.',
    async ({ store, key }) => {
      same(await store.read(key, call()), null);
    },
  );

  test(
    'fields come back byte for byte, whatever their names and values',
    'Treat names and values as opaque strings. `__proto__` is a valid name, so do not use plain JavaScript objects. V8 sometimes parses ' +
      'JSON objects with backslashes in their keys wrongly (nodejs/node#63785): encode these characters, or store a list of pairs.',
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
    'a value of 100,000 characters comes back complete',
    'Choose a column type, or value type, that is large enough for the sessions of real sites.',
    async ({ store, key }) => {
      const large = fields({ large: `:["${'x'.repeat(100_000)}"]` });
      await store.patch(key, change({ set: large }), call());
      same(await store.read(key, call()), large);
    },
  );

  test(
    'one change can write 1,000 fields',
    'If the backend limits the parameters of a statement, pass the fields as one value, such as an array or a JSON string.',
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
    'Compare names by their bytes: use a binary collation, a column as wide as the longest name, and no trimming.',
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
    'Compare keys by their bytes: they contain hashes in base64url, where `a` and `A` are different digits.',
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
    'a change of some fields keeps the others',
    'Write only the fields of the change, not a whole record that was read before.',
    async ({ store, key }) => {
      await store.patch(key, change({ set: fields({ a: ':1', b: ':2', c: ':3' }) }), call());
      await store.patch(key, change({ set: fields({ b: ':4' }), unset: ['c', 'unknown'] }), call());
      same(await store.read(key, call()), fields({ a: ':1', b: ':4' }));
    },
  );

  test(
    'a record without fields is a record',
    'Keep the record when its last field is removed: an empty session is not a destroyed session.',
    async ({ store, key }) => {
      await store.patch(key, change({ set: fields({ a: ':1' }) }), call());
      await store.patch(key, change({ unset: ['a'] }), call());
      same(await store.read(key, call()), new Map());
      same(await store.patch(key, change({ set: fields({ b: ':1' }), mustExist: true }), call()), 'applied');
    },
  );

  test(
    'changing a returned or a passed Map does not change the record',
    'Return a new Map to every reader, and do not keep the Map of a writer.',
    async ({ store, key }) => {
      const written = fields({ a: ':1' });
      await store.patch(key, change({ set: written }), call());
      written.set('a', ':2');
      (await store.read(key, call()))?.clear();
      same(await store.read(key, call()), fields({ a: ':1' }));
    },
  );
}
