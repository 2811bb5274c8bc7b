import { readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { importsOf, isBare, modulesOf, workspace } from '@coatcheck/test-support/imports';

// `pnpm graph` prints the lines of each package, the lines of each folder of core, and how many imports go from one folder of core to another.
// test/house-rules.test.ts holds the rule that they go down.

const ORDER = ['entries', 'testing', 'astro', 'session', 'engine', 'stores', 'codec', 'config', 'platform', 'contract'];
const CORE = 'packages/session-core';

function linesOf(modules: string[]): number {
  return modules.reduce((sum, path) => sum + readFileSync(join(workspace, path), 'utf8').split('\n').length - 1, 0);
}

function folderOf(path: string): string {
  const [folder = '', ...rest] = relative(`${CORE}/src`, path).split('/');
  return rest.length > 0 ? folder : 'entries';
}

const byPackage = Map.groupBy(modulesOf('packages/*'), (path) => path.split('/')[1]!);
console.log('package                    modules  lines');
for (const [name, modules] of byPackage)
  console.log(`${name.padEnd(26)} ${String(modules.length).padStart(7)} ${String(linesOf(modules)).padStart(6)}`);

const modules = Map.groupBy(modulesOf(CORE), folderOf);
const imports = [...modules.values()]
  .flat()
  .flatMap(importsOf)
  .filter(({ what }) => !isBare(what));
console.log(
  `\ncore: imports from ↓ to →  lines ${ORDER.slice(2)
    .map((to) => to.padStart(9))
    .join('')}`,
);
for (const from of ORDER) {
  const counts = ORDER.slice(2).map(
    (to) => imports.filter((it) => folderOf(it.from) === from && folderOf(it.what) === to && from !== to).length,
  );
  const cells = counts.map((count) => String(count || '·').padStart(9)).join('');
  console.log(`${from.padEnd(26)} ${String(linesOf(modules.get(from) ?? [])).padStart(6)} ${cells}`);
}
