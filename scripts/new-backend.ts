import { cpSync, existsSync, globSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

// `pnpm new-backend cloudflare-kv` makes packages/session-cloudflare-kv, which builds and passes the conformance suite, and names it
// wherever the workspace names its packages. What is left for its author is marked with TODO.

const workspace = fileURLToPath(new URL('../', import.meta.url));
const template = fileURLToPath(new URL('new-backend/', import.meta.url));

const [name = ''] = process.argv.slice(2);
if (!/^[a-z][a-z0-9]*(?:-[a-z0-9]+)*$/.test(name) || name.startsWith('session-')) {
  throw new Error('Name the backend in lower case, with hyphens, without `session-`: pnpm new-backend cloudflare-kv');
}
const folder = `session-${name}`;
const packageFolder = join(workspace, 'packages', folder);
if (existsSync(packageFolder)) throw new Error(`packages/${folder} exists already.`);

/** In prose: `Cloudflare Kv`. */
const title = name.replaceAll(/(?:^|-)(.)/g, (_, letter: string) => ` ${letter.toUpperCase()}`).trim();
const Name = title.replaceAll(' ', '');
const camelName = Name[0]!.toLowerCase() + Name.slice(1);
const VARIABLE = `${name.replaceAll('-', '_').toUpperCase()}_URL`;

/** What the template calls the backend, and what it is called here. */
const names: Record<string, string> = {
  THING_URL: VARIABLE,
  'session-thing': folder,
  '"thing"': `"${name}"`,
  ThingDriver: `${Name}Driver`,
  Thing: title,
  thing: camelName,
};

function named(text: string): string {
  const placeholder = /THING_URL|session-thing\b|"thing"|ThingDriver|\bThing\b|\bthing(?=\b|Driver|Kinds)/g;
  return text.replaceAll(placeholder, (it) => names[it]!);
}

function edit(path: string, change: (text: string) => string): void {
  const file = join(workspace, path);
  const before = readFileSync(file, 'utf8');
  const after = change(before);
  if (after === before) throw new Error(`${path} is not as this script expects it; nothing was changed there.`);
  writeFileSync(file, after);
  console.log(`changed ${path}`);
}

/** Inserts lines behind the last line that matches. */
function behindLast(pattern: RegExp, ...added: string[]): (text: string) => string {
  return (text) => {
    const lines = text.split('\n');
    const last = lines.findLastIndex((line) => pattern.test(line));
    return last === -1 ? text : lines.toSpliced(last + 1, 0, ...added).join('\n');
  };
}

function addDependency(section: 'dependencies' | 'devDependencies') {
  return (text: string): string => {
    const manifest = JSON.parse(text) as Record<typeof section, Record<string, string>>;
    const all = { ...manifest[section], [`@coatcheck/${folder}`]: 'workspace:*' };
    manifest[section] = Object.fromEntries(Object.entries(all).sort(([one], [other]) => (one < other ? -1 : 1)));
    return `${JSON.stringify(manifest, null, 2)}\n`;
  };
}

cpSync(join(template, 'template'), packageFolder, { recursive: true });
for (const file of globSync('**/*.{ts,json,md}', { cwd: packageFolder })) {
  const path = join(packageFolder, file);
  writeFileSync(path, named(readFileSync(path, 'utf8')));
  console.log(`made packages/${folder}/${file}`);
}
const tests = { [`test/${name}.test.ts`]: 'site.test.ts.txt' };
for (const [path, from] of Object.entries(tests)) {
  writeFileSync(join(workspace, path), named(readFileSync(join(template, from), 'utf8')));
  console.log(`made ${path}`);
}

// The shared options are described alike in all READMEs.
const shared = readFileSync(join(workspace, 'packages/session-memory/README.md'), 'utf8')
  .split('\n')
  .filter((line) => /^\| `(?:prefix|ttl|idleTtl|timeout|secrets|migrateFrom)` /.test(line));
edit(`packages/${folder}/README.md`, behindLast(/^\| `url` /, ...shared));

edit('package.json', addDependency('devDependencies'));
for (const app of ['astro-6', 'astro-7']) edit(`test/apps/${app}/package.json`, addDependency('dependencies'));
edit(
  'test/support/site.ts',
  behindLast(/^ {2}\w+Driver: '@coatcheck\//, `  ${camelName}Driver: '@coatcheck/${folder}',`),
);
edit('test/astro-types.test-d.ts', (text) =>
  [
    behindLast(
      /^import .* from '@coatcheck\/session-[^c]/,
      `import { ${camelName}Driver } from '@coatcheck/${folder}';`,
    ),
    behindLast(
      /^defineConfig7\(\{ session: \{ driver: \w+Driver\(\) \} \}\);/,
      `defineConfig6({ session: { driver: ${camelName}Driver() } });`,
      `defineConfig7({ session: { driver: ${camelName}Driver() } });`,
    ),
  ].reduce((all, change) => change(all), text),
);
edit('test/stored-records.test.ts', (text) =>
  text.replace(/(?<=^const unrecorded = new Set\(\[.*)(?=\]\);$)/m, `, '${folder}'`),
);
edit('.size-limit.json', (text) => {
  const limits = JSON.parse(text) as Record<string, unknown>[];
  limits.push({
    name: `${folder}, with core`,
    path: `packages/${folder}/dist/runtime.js`,
    ignore: ['devalue', './late-*', './value.js'],
    gzip: true,
    // What the template needs, and some room for the real backend.
    limit: '15 kB',
  });
  return `${JSON.stringify(limits, null, 2)}\n`;
});
edit(
  'README.md',
  behindLast(
    /^\| .*\(packages\/session-.*\|$/,
    `| TODO: where your site runs | [\`${folder}\`](packages/${folder}/README.md) |`,
  ),
);

const changeset = `---\n'@coatcheck/${folder}': minor\n---\n\nAdds \`${camelName}Driver()\`, which stores Astro's sessions in ${title}.\n`;
writeFileSync(join(workspace, `.changeset/first-${name}.md`), changeset);
console.log(`made .changeset/first-${name}.md

Next:
  npx --yes pnpm@12.21.0 install
  npx --yes pnpm@12.21.0 format
  npx --yes pnpm@12.21.0 build
  npx --yes pnpm@12.21.0 exec vitest run packages/${folder} test/${name}.test.ts
Everything passes now. Then put the real backend into src/backend.ts, and do everything else that is marked with TODO:
  git grep --untracked -n TODO -- packages/${folder} test/${name}.test.ts README.md`);
