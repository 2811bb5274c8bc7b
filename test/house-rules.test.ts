import { execFileSync } from 'node:child_process';
import { existsSync, globSync, readFileSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { describe, expect, test } from 'vitest';
import { importsOf, isBare, modulesOf, workspace, type Import } from './support/imports.ts';

// Rules for the source of every package, including new ones.

const CORE = 'session-core';

const folders = globSync('packages/*/package.json', { cwd: workspace }).map(folderOf).sort();
const INTEGRATION = 'astro';
// Core, the package for a site's own entrypoint, and the integration have no driver for `astro.config`.
const drivers = folders.filter((folder) => ![CORE, 'session-unstorage', INTEGRATION].includes(folder));
const modules = modulesOf('packages/*');

const imports: Import[] = modules.flatMap(importsOf);

describe('the folders of core', () => {
  // A folder imports only from itself and from folders below it in this list; `astro` and `session` are on one level. `pnpm graph` draws it.
  const order = ['astro', 'session', 'engine', 'stores', 'codec', 'config', 'platform', 'contract'];
  const source = `packages/${CORE}/src`;
  const folderIn = (path: string) => relative(source, path).split('/', 1)[0]!;

  test('are the ones listed here, plus the conformance suite and the entries', () => {
    const entries = globSync(`${source}/*.ts`, { cwd: workspace });
    const found = new Set(modules.filter((path) => path.startsWith(`${source}/`)).map(folderIn));
    expect(found).toEqual(new Set([...order, 'testing', ...entries.map(folderIn)]));
  });

  test.each(order)('%s imports from no folder above it', (folder) => {
    const below = order.slice(order.indexOf(folder === 'astro' ? 'session' : folder) + 1);
    const allowed = new Set([folder, ...below]);
    const own = imports.filter(({ from, what }) => dirname(from).startsWith(`${source}/${folder}`) && !isBare(what));
    expect(own.filter(({ what }) => !allowed.has(folderIn(what))).map(show)).toEqual([]);
  });
});

test('every package has a limit for its size', () => {
  const limits = JSON.parse(readFileSync(join(workspace, '.size-limit.json'), 'utf8')) as { path: string }[];
  expect([...new Set(limits.map(({ path }) => folderOf(path)))].sort()).toEqual(folders);
});

test('core runs without Node', () => {
  const builtin = imports.filter(({ from, what }) => folderOf(from) === CORE && what.startsWith('node:'));
  expect(builtin.filter(({ typeOnly, dynamic }) => !typeOnly && !dynamic).map(show)).toEqual([]);
});

test('the conformance suite imports no test runner', () => {
  const { dependencies } = manifestOf(CORE);
  const foreign = reach(`packages/${CORE}/src/testing/index.ts`).filter(
    ({ what }) => !(packageOf(what) in dependencies),
  );
  expect(foreign.map(show)).toEqual([]);
});

test('a driver imports core and no other driver', () => {
  const ours = imports.filter(({ what }) => packageOf(what).startsWith('@coatcheck/'));
  const core = `@coatcheck/${CORE}`;
  expect(ours.filter(({ what }) => packageOf(what) !== core).map(show)).toEqual([]);
  const needed = folders.flatMap((folder) => Object.keys(manifestOf(folder).dependencies));
  expect(needed.filter((name) => name.startsWith('@coatcheck/') && name !== core)).toEqual([]);
  const outside = imports.filter(({ from, what }) => !isBare(what) && folderOf(from) !== folderOf(what));
  expect(outside.map(show)).toEqual([]);
});

test('only the entrypoint for Astro imports from Astro, and only its environment variables; the integration imports types', () => {
  const astro = imports.filter(({ what }) => /^(?:astro\b|@astrojs\/)/.test(what));
  const allowed = ({ from, what, typeOnly }: Import) =>
    (from.endsWith('/src/astro.ts') && what === 'astro:env/server') || (folderOf(from) === INTEGRATION && typeOnly);
  expect(astro.filter((it) => !allowed(it)).map(show)).toEqual([]);
});

describe.each(drivers)('%s', (folder) => {
  const words = folder.split('-').slice(1);
  const Name = words.map((word) => word[0]!.toUpperCase() + word.slice(1)).join('');
  const name = Name[0]!.toLowerCase() + Name.slice(1);
  const dist = join(workspace, 'packages', folder, 'dist');

  test('is named after its folder, and so are its exports', async () => {
    expect(manifestOf(folder).name).toBe(`@coatcheck/${folder}`);
    expect(Object.keys(await load(join(dist, 'index.js')))).toContain(`${name}Driver`);
    const types = readFileSync(join(dist, 'index.d.ts'), 'utf8');
    expect(types).toMatch(new RegExp(`export (?:interface |type (?:\\{[^}]*)?)${Name}DriverConfig\\b(?! as)`));
    expect({ ...(await load(join(dist, 'runtime.js'))) }).toEqual({ default: expect.any(Function) });
  });

  test('returns an existing entrypoint, without options', async () => {
    const { [`${name}Driver`]: driver } = await load(join(dist, 'index.js'));
    const { entrypoint } = (driver as () => { entrypoint: URL })();
    expect(fileURLToPath(entrypoint)).toBe(join(dist, 'astro.js'));
    expect(existsSync(entrypoint)).toBe(true);
  });

  test('does not load its client inside astro.config', () => {
    const foreign = reach(`packages/${folder}/src/index.ts`).filter(
      ({ what }) => packageOf(what) !== `@coatcheck/${CORE}`,
    );
    expect(foreign.map(show)).toEqual([]);
  });
});

test('no tracked file contains local paths or registry hosts', () => {
  const listed = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: workspace,
  });
  const tracked = String(listed)
    .split('\0')
    .filter((path) => path && existsSync(join(workspace, path)) && statSync(join(workspace, path)).isFile());
  expect(tracked).toContain('package.json');
  // The pattern must not match this file itself.
  const foreign = /(?<![\w.-])\/(?:home|root|Users|work)\/\w|\bregistry\.(?:npmjs|yarnpkg)\b/;
  const tells = (line: string) => line.includes(workspace) || line.includes(`${homedir()}/`) || foreign.test(line);
  const found = tracked.flatMap((path) => {
    const lines = readFileSync(join(workspace, path), 'latin1').split('\n');
    return lines.flatMap((line, index) => (tells(line) ? [`${path}:${index + 1} ${line.slice(0, 200)}`] : []));
  });
  expect(found).toEqual([]);
});

/** All packages that a module imports statically, directly or through other modules of its own package. */
function reach(entry: string): Import[] {
  const seen = new Set([entry]);
  for (const module of seen) {
    for (const { what } of valuesOf(module)) if (!isBare(what)) seen.add(what);
  }
  return [...seen].flatMap(valuesOf).filter(({ what }) => isBare(what));
}

function valuesOf(module: string): Import[] {
  return imports.filter(({ from, typeOnly }) => from === module && !typeOnly);
}

function folderOf(module: string): string {
  return module.split('/')[1]!;
}

function packageOf(specifier: string): string {
  return /^(?:@[^/]+\/)?[^/]+/.exec(specifier)![0];
}

function show({ from, what }: Import): string {
  return `${from} imports ${what}`;
}

function manifestOf(folder: string): { name: string; dependencies: Record<string, string> } {
  return { dependencies: {}, ...JSON.parse(readFileSync(join(workspace, 'packages', folder, 'package.json'), 'utf8')) };
}

function load(file: string): Promise<Record<string, unknown>> {
  return import(pathToFileURL(file).href) as Promise<Record<string, unknown>>;
}
