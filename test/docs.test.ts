import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import {
  anchorOf,
  headingsOf,
  linksOf,
  readPages,
  sourcesOf,
  tablesOf,
  typeCheck,
  workspace,
  type Page,
  type Source,
  type Table,
} from './support/pages.ts';

// Tests of the documentation: its code compiles against the built packages, its tables of options match the types, and its links have
// targets.

const manifest = JSON.parse(readFileSync(join(workspace, 'package.json'), 'utf8'));
const pages = readPages();
const packages = pages.filter(({ path }) => /^packages\/[^/]+\/README\.md$/.test(path));
const drivers = packages.filter((page) => folderOf(page).startsWith('session-') && folderOf(page) !== 'session-core');

let problems: string[];

beforeAll(async () => {
  problems = await typeCheck([...pages.flatMap(sourcesOf), ...packages.flatMap(optionChecks)]);
}, 60_000);

describe.each(pages)('$path', (page) => {
  test('has code that compiles, and correct tables of options', () => {
    expect(problems.filter((problem) => problem.startsWith(`${page.path}:`))).toEqual([]);
  });

  test('has links with existing targets', () => {
    expect(linksOf(page).filter((link) => !leadsSomewhere(page, link))).toEqual([]);
  });

  test('names commands and files that exist', () => {
    const scripts = new Set([...Object.keys(manifest.scripts), 'exec', 'install']);
    const commands = [...page.text.matchAll(/npx --yes (pnpm@[\d.]+) ([\w:-]+)/g)];
    const wrong = commands.filter(([, pnpm, script]) => pnpm !== manifest.packageManager || !scripts.has(script!));
    expect(wrong.map(([command]) => command)).toEqual([]);

    const files = [...page.text.matchAll(/(?:vitest run|node(?: --[\w-]+)*) ([\w./-]+\.ts)/g)].map(([, path]) => path!);
    expect(files.filter((path) => !existsSync(join(workspace, path)))).toEqual([]);
  });
});

test('every package has a README', () => {
  const folders = globSync('packages/*/package.json', { cwd: workspace }).map((path) => dirname(path));
  expect(packages.map(({ path }) => dirname(path))).toEqual(folders.sort());
});

test('there are no other errors in the code of the pages', () => {
  expect(problems.filter((problem) => !pages.some(({ path }) => problem.startsWith(`${path}:`)))).toEqual([]);
});

describe.each(packages)('the README of a package, $path', (page) => {
  test('has its sections in the common order', () => {
    const isIntegration = folderOf(page) === 'astro';
    const use = drivers.includes(page) || isIntegration ? 'Configure' : 'Use';
    const own = isIntegration
      ? ['What it checks', 'Renewing the cookie', 'Locals', 'Types']
      : ['Expiry and consistency'];
    const order = new Set(['Install', use, 'Options', ...own, 'Errors']);
    expect(headingsOf(page).filter((heading) => order.has(heading))).toEqual([...order]);
  });

  test('has tables of options', () => {
    expect(optionTables(page)).not.toEqual([]);
  });

  test('is linked from the first page', () => {
    const first = pages.find(({ path }) => path === 'README.md')!;
    expect(linksOf(first)).toContain(page.path);
  });
});

test.each(drivers)('$path shows a complete astro.config with the driver', (page) => {
  const [folder, name] = [folderOf(page), driverName(page)];
  const configs = sourcesOf(page).filter(({ code }) => code.includes('export default defineConfig('));
  // A package without a config function is used in the site's own entrypoint.
  const hasConfigFunction = existsSync(join(workspace, 'packages', folder, 'src/astro.ts'));
  const driver = hasConfigFunction ? `\\b${name}Driver\\b.* from '@coatcheck/${folder}';` : 'entrypoint: new URL';
  expect(configs.map(({ code }) => code)).toEqual(expect.arrayContaining([expect.stringMatching(driver)]));
});

test('changesets begin with a verb in the present tense', () => {
  const texts = globSync('.changeset/!(README).md', { cwd: workspace }).map((path) =>
    readFileSync(join(workspace, path), 'utf8').replace(/^---[^]*?---\s*/, ''),
  );
  expect(texts.filter((text) => !/^[A-Z][a-z]+s /.test(text))).toEqual([]);
});

// ------------------------------------------------------------------------------------------------------------------- names

function folderOf({ path }: Page): string {
  return path.split('/')[1]!;
}

/** `cloudflareKv` for the folder `session-cloudflare-kv`. */
function driverName(page: Page): string {
  const words = folderOf(page).replace('session-', '');
  return words.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase());
}

// ----------------------------------------------------------------------------------------------------------------- options

/** The tables of options, and the name of the type that each documents. */
function optionTables(page: Page): { table: Table; config: string }[] {
  const name = driverName(page);
  const types: Record<string, string> = {
    createSessions: 'SessionsOptions',
    driver: 'SharedOptions',
    integration: 'CoatcheckOptions',
  };
  return tablesOf(page, 'Options').flatMap((table) => {
    const [first = '', second] = table.header;
    if (second !== 'type') return [];
    return [{ table, config: types[first] ?? `${name[0]!.toUpperCase()}${name.slice(1)}DriverConfig` }];
  });
}

// `Option` is the type of a literal value, without `EnvRef`. Readonly arrays count as arrays.
const HELPERS = `
  type Group<T> = Extract<T, object>;
  type Option<T, Key extends keyof Group<T>> = Value<Group<T>[Key]>;
  type Value<T> = T extends EnvRef | undefined ? never : T extends readonly (infer Item)[] ? Item[] : T;`;

/** A file for each table. It compiles only if the rows of the table are exactly the options of the type, with their types. */
function optionChecks(page: Page): Source[] {
  return optionTables(page).map(({ table, config }) => {
    const typeOf = (path: string[]): string => path.reduce((type, key) => `Option<${type}, '${key}'>`, config);
    const named = new Set([config]);
    const groups = new Map<string, string[]>();
    const lines: string[] = [];
    for (const { line, cells } of table.rows) {
      const [name = '', type = ''] = cells;
      const path = name.split('.');
      const group = typeOf(path.slice(0, -1));
      groups.set(group, [...(groups.get(group) ?? []), `'${path.at(-1)}'`]);
      for (const [word] of type.matchAll(/\b(?!URL\b)[A-Z]\w+/g)) named.add(word);
      const actual = typeOf(path);
      lines[line - table.line] =
        `{ let table: ${type} = null! as ${actual}; let real: ${actual} = null! as (${type}); }`;
    }
    const complete = [...groups].map(
      ([group, keys]) => `{ let missing: never = null! as Exclude<keyof Group<${group}>, ${keys.join(' | ')}>; }`,
    );
    const imports = `import type { ${[...named].join(', ')} } from '@coatcheck/${folderOf(page)}';
      import type { EnvRef } from '@coatcheck/session-core';`;
    lines[0] = [imports, HELPERS, ...complete].join(' ').replaceAll('\n', ' ');
    return { page: page.path, line: table.line, name: `options-${table.line}.ts`, code: lines.join('\n') };
  });
}

// ------------------------------------------------------------------------------------------------------------------- links

function leadsSomewhere(page: Page, link: string): boolean {
  const [path = '', anchor] = link.split('#');
  const target = path === '' ? page.path : join(dirname(page.path), decodeURIComponent(path));
  if (!existsSync(join(workspace, target))) return false;
  if (anchor === undefined) return true;
  const linked = pages.find((other) => other.path === target);
  return linked !== undefined && headingsOf(linked).map(anchorOf).includes(anchor);
}
