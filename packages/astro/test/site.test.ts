import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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

describe('whose driver a site has', () => {
  test("one of Coatcheck's, by the package of its entrypoint", () => {
    const driver = redisDriver({ idleTtl: 60 });
    const expected = { kind: 'coatcheck', name: 'session-redis', config: { idleTtl: 60 } };
    expect(driverOf({ driver })).toEqual(expected);
    // As a path, which Astro also takes.
    expect(driverOf({ driver: { ...driver, entrypoint: (driver.entrypoint as URL).pathname } })).toEqual(expected);
  });

  test("one of Astro's", () => {
    expect(driverOf({ driver: sessionDrivers.fsLite() })).toEqual({ kind: 'other', name: 'unstorage/drivers/fs-lite' });
    expect(driverOf({ driver: 'redis' })).toEqual({ kind: 'other', name: 'redis' });
  });

  test('a module of the site, or one of another package', () => {
    const at = (path: string) => ({ driver: { entrypoint: pathToFileURL(join(folder, path)) } });
    expect(driverOf(at('src/session-driver.ts'))).toEqual({ kind: 'own' });
    expect(driverOf(at('node_modules/other/driver.js'))).toEqual({
      kind: 'other',
      name: join(folder, 'node_modules/other/driver.js'),
    });
  });

  test('none', () => {
    expect(driverOf(undefined)).toEqual({ kind: 'none' });
    expect(driverOf({})).toEqual({ kind: 'none' });
    expect(driverOf(false)).toEqual({ kind: 'none', disabled: true });
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
