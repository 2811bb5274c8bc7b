import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { schemaOf, typesOf } from '../src/schema.ts';

// Which module types the session, and how the types refer to it.

let folder: string;
let root: URL;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'coatcheck-schema-'));
  root = pathToFileURL(`${folder}/`);
  mkdirSync(join(folder, 'src'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function write(name: string, text: string): string {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
}

describe('the module', () => {
  test.each([
    ['export default {};'],
    ["export { default } from './real.ts';"],
    ["export { schemas as default, other } from './real.ts';"],
    ['const it = {};\nexport {\n  it as default,\n};'],
  ])('has a default export: %s', (text) => {
    const path = write('src/schema.ts', text);
    expect(schemaOf('./src/schema.ts', root)).toBe(path);
  });

  test.each(['export const cart = 1;', "import it from './it.ts';"])('has none: %s', (text) => {
    write('src/schema.ts', text);
    expect(() => schemaOf('src/schema.ts', root)).toThrow('but the module has no default export');
  });

  test.each(['./src', '', './missing.ts', 'valibot', 'https://a.example/schema.ts', 'C:\\site\\schema.ts'])(
    'is no file: %s',
    (schema) => {
      expect(() => schemaOf(schema, root)).toThrow(
        expect.objectContaining({
          code: 'configuration',
          message: expect.stringContaining(`\`schema\` is '${schema}', but there is no such file`),
        }),
      );
    },
  );

  test('is named by a path, whatever it contains, or by a URL', () => {
    for (const name of ['src/100%.ts', 'src/a#b.ts', "src/it's.ts", 'src/a b.ts']) {
      const path = write(name, 'export default {};');
      for (const schema of [`./${name}`, path, pathToFileURL(path), pathToFileURL(path).href])
        expect(schemaOf(schema, root)).toBe(path);
    }
  });

  test('is not needed', () => {
    expect(schemaOf(undefined, root)).toBeUndefined();
  });
});

test('the types import the module, whatever its name contains', () => {
  const types = typesOf(join(folder, "src/it's.ts"), root);
  expect(types).toContain(`import type schema from "../../../src/it's.ts";`);
  expect(typesOf(undefined, root)).not.toContain('schema');
});
