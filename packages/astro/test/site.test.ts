import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import coatcheck, { type CoatcheckOptions } from '@coatcheck/astro';
import { redisDriver } from '@coatcheck/session-redis';
import { sessionDrivers } from 'astro/config';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { driverOf, installedIn, variablesIn } from '../src/site.ts';

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'coatcheck-site-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function write(path: string, content: string | object): void {
  mkdirSync(dirname(join(folder, path)), { recursive: true });
  writeFileSync(join(folder, path), typeof content === 'string' ? content : JSON.stringify(content));
}

describe('whose driver a site has', () => {
  const driverIn = (session: Parameters<typeof driverOf>[0]) => driverOf(session, folder);

  test("one of Coatcheck's, by the package of its entrypoint", () => {
    const driver = redisDriver({ idleTtl: 60 });
    const expected = { kind: 'coatcheck', name: 'session-redis', config: { idleTtl: 60 } };
    expect(driverIn({ driver })).toEqual(expected);
    // As a path, which Astro also takes.
    expect(driverIn({ driver: { ...driver, entrypoint: (driver.entrypoint as URL).pathname } })).toEqual(expected);
  });

  test("one of Coatcheck's, by the name of its module", () => {
    const entrypoint = '@coatcheck/session-redis/runtime';
    const expected = { kind: 'coatcheck', name: 'session-redis', config: { idleTtl: 60 } };
    expect(driverIn({ driver: { entrypoint, config: { idleTtl: 60 } } })).toEqual(expected);
    expect(driverIn({ driver: entrypoint, options: { idleTtl: 60 } })).toEqual(expected);
  });

  test("one of Astro's", () => {
    const other = (name: string) => ({ kind: 'other', name, isPackage: false });
    write('node_modules/unstorage/package.json', { name: 'unstorage' });
    expect(driverIn({ driver: sessionDrivers.fsLite() })).toEqual(other('unstorage/drivers/fs-lite'));
    expect(driverIn({ driver: 'redis' })).toEqual(other('redis'));
  });

  const at = (path: string) => ({ driver: { entrypoint: pathToFileURL(join(folder, path)) } });

  test('a module of the site', () => {
    expect(driverIn(at('src/session-driver.ts'))).toEqual({ kind: 'own' });
  });

  test.each(['dependencies', 'peerDependencies', 'optionalDependencies'])(
    'one of a package that may create a Coatcheck driver, by its %s',
    (kind) => {
      write('node_modules/@acme/sessions/package.json', {
        name: '@acme/sessions',
        [kind]: { '@coatcheck/session-redis': '1' },
      });
      expect(driverIn(at('node_modules/@acme/sessions/dist/driver.js'))).toEqual({ kind: 'own' });
      expect(driverIn({ driver: { entrypoint: '@acme/sessions/driver' } })).toEqual({ kind: 'own' });
      // Also one that is installed above the site, as in a monorepo.
      expect(driverOf({ driver: '@acme/sessions' }, join(folder, 'apps/site'))).toEqual({ kind: 'own' });
    },
  );

  test('one of a package that contains a Coatcheck driver', () => {
    write('node_modules/bundled/package.json', { name: 'bundled' });
    write('node_modules/bundled/driver.js', "const ENGINE = Symbol.for('@coatcheck/session-core/engine@1');");
    expect(driverIn(at('node_modules/bundled/driver.js'))).toEqual({ kind: 'own' });
  });

  test('one of another package', () => {
    write('node_modules/other/package.json', { name: 'other', dependencies: { unstorage: '1' } });
    write('node_modules/other/driver.js', 'export default () => ({});');
    const other = { kind: 'other', name: 'other', isPackage: true };
    expect(driverIn(at('node_modules/other/driver.js'))).toEqual(other);
    expect(driverIn({ driver: 'other/driver' })).toEqual({ ...other, name: 'other/driver' });
  });

  test('none', () => {
    expect(driverIn(undefined)).toEqual({ kind: 'none' });
    expect(driverIn({})).toEqual({ kind: 'none' });
    expect(driverIn(false)).toEqual({ kind: 'none', disabled: true });
  });
});

test('which drivers a site has installed', () => {
  expect(installedIn(folder)).toEqual([]);
  const dependencies = { '@coatcheck/astro': '1', '@coatcheck/session-core': '1', '@coatcheck/session-redis': '1' };
  const devDependencies = {
    '@coatcheck/session-memory': '1',
    '@coatcheck/session-unstorage': '1',
    'session-other': '1',
  };
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ dependencies, devDependencies }));
  expect(installedIn(folder)).toEqual(['session-redis', 'session-memory']);
  writeFileSync(join(folder, 'package.json'), '{}');
  expect(installedIn(folder)).toEqual([]);
});

test('environment variables are in the process or in the files of all modes, but not in examples', () => {
  writeFileSync(join(folder, '.env'), 'COATCHECK_A=1\nCOATCHECK_EMPTY=\n');
  writeFileSync(join(folder, '.env.production.local'), 'export COATCHECK_B="2"\n');
  writeFileSync(join(folder, '.env.example'), 'COATCHECK_C=3\n');
  const has = variablesIn(folder);
  expect(['COATCHECK_A', 'COATCHECK_B', 'PATH'].filter((name) => !has(name))).toEqual([]);
  expect(['COATCHECK_C', 'COATCHECK_EMPTY', 'COATCHECK_D'].filter(has)).toEqual([]);
  expect(variablesIn(join(folder, 'missing'))('COATCHECK_A')).toBe(false);
});

test('a folder with the name of a file for variables is none', () => {
  mkdirSync(join(folder, 'python/.env'), { recursive: true });
  writeFileSync(join(folder, 'python/.env.local'), 'COATCHECK_A=1');
  expect(variablesIn(join(folder, 'python'))('COATCHECK_A')).toBe(true);
});

test.each<[options: unknown, message: string]>([
  [{ shema: './a.ts' }, 'There is no option `shema`'],
  [{ schema: 1 }, '`schema` must be the path of a module'],
  [{ renewCookie: 'yes' }, '`renewCookie` must be true or false'],
  [{ ignore: ['cookies'] }, "`ignore` must be a list of 'no-adapter', 'no-driver', "],
  [{ ignore: 'cookie' }, '`ignore` must be a list of'],
])('wrong options: %o', (options, message) => {
  expect(() => coatcheck(options as CoatcheckOptions)).toThrow(
    expect.objectContaining({
      name: 'SessionDriverError',
      code: 'configuration',
      message: expect.stringContaining(`[@coatcheck/astro] ${message}`),
    }),
  );
});
