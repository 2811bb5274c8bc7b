import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { beforeAll, describe, expect, test } from 'vitest';
import { run, workspace } from './support/installed.ts';
import { startRegistry, type Registry } from './support/registry.ts';
import { astros } from './support/scope.ts';

// The integration as users get it: `astro add` installs it from a registry, `astro build` reports what the site lacks, and `astro check`
// sees its types.

let folder: string;
let registry: Registry;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'coatcheck-add-'));
  registry = await startRegistry(['astro', 'session-core', 'session-sqlite'], folder);
  return async () => {
    await registry[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  };
}, 120_000);

async function write(app: string, files: Record<string, string>): Promise<void> {
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(app, path)), { recursive: true });
    await writeFile(join(app, path), text);
  }
}

const versionOf = async (astro: 6 | 7, name: string): Promise<string> => {
  const manifest = JSON.parse(await readFile(join(workspace, `test/apps/astro-${astro}/package.json`), 'utf8'));
  return manifest.dependencies[name];
};

const cli = (app: string, ...args: string[]): Promise<string> =>
  run(process.execPath, ['node_modules/astro/bin/astro.mjs', ...args], app);

const config = `
  import node from '@astrojs/node';
  import coatcheck from '@coatcheck/astro';
  import { sqliteDriver } from '@coatcheck/session-sqlite';
  import { defineConfig } from 'astro/config';

  export default defineConfig({
    output: 'server',
    adapter: node({ mode: 'standalone' }),
    integrations: [coatcheck({ schema: './src/session-schema.ts' })],
    session: { driver: sqliteDriver(), cookie: { maxAge: 3600 }, ttl: 3600 },
  });`;

const schema = `
  import * as v from 'valibot';
  import { z } from 'astro/zod';

  export default {
    cart: v.array(v.object({ sku: v.string(), count: v.number() })),
    user: z.object({ name: z.string() }),
    visits: v.pipe(v.string(), v.transform(Number)),
    'cart:hat': z.number(),
  };`;

// The values have no type annotations of their own: Astro's `get` lets these win over `App.SessionData`.
const typed = `---
const session = Astro.session!;
const [cart, user] = [await session.get('cart'), await session.get('user')];
const [visits, hats] = [await session.get('visits'), await session.get('cart:hat')];
const lines: { sku: string; count: number }[] | undefined = cart;
const name: string | undefined = user?.name;
const sum: number = (visits ?? 0) + (hats ?? 0);
session.set('cart', [{ sku: 'hat', count: 1 }]);
const current = await Astro.locals.sessions.current();
const handle: string | undefined = current?.handle;
const times: (Date | null | undefined)[] = [current?.created, current?.expires];
const destroyed: boolean = await Astro.locals.sessions.destroyed();
---
<p>{lines?.length} {name} {sum} {handle} {times.length} {destroyed}</p>
`;

/** Each line from the fifth on is an error, in a page of its own. */
const wrong = `---
const session = Astro.session!;
const [cart, user] = [await session.get('cart'), await session.get('user')];
const [visits, hats] = [await session.get('visits'), await session.get('cart:hat')];
const lines: string | undefined = cart;
const name: number | undefined = user?.name;
const times: string | undefined = visits;
const count: string | undefined = hats;
session.set('cart', [{ sku: 1 }]);
session.set('visits', '1');
Astro.locals.sessions.current().then((current) => current.handle);
const created: Date | undefined = (await Astro.locals.sessions.current())?.created;
Astro.locals.sessions.signIn;
---
<p>{lines} {name} {times} {count} {created}</p>
`;

describe.each(astros)('on a site on Astro %i', (astro) => {
  let app: string;

  // One site for both tests, because npm takes longer than they do. It uses neither the adapter nor the driver at first.
  beforeAll(async () => {
    app = join(folder, `astro-${astro}`);
    const dependencies = {
      astro: await versionOf(astro, 'astro'),
      '@astrojs/check': '^0.9.10',
      '@astrojs/node': await versionOf(astro, '@astrojs/node'),
      '@coatcheck/session-sqlite': 'latest',
      typescript: '^5.9.0',
      valibot: '^1.5.0',
    };
    await write(app, {
      '.npmrc': `registry=${registry.url}\naudit=false\nfund=false\nprefer-offline=true\n`,
      'package.json': JSON.stringify({ private: true, type: 'module', dependencies }),
      'tsconfig.json': JSON.stringify({ extends: 'astro/tsconfigs/strict', include: ['.astro/types.d.ts', '**/*'] }),
      'src/pages/index.astro': '<p>an empty site</p>\n',
    });
    await run('npm', ['install'], app);
    await cli(app, 'add', '@coatcheck/astro', '--yes');
  }, 400_000);

  test('`astro add` installs and configures the integration', { timeout: 400_000 }, async () => {
    const added = await readFile(join(app, 'astro.config.mjs'), 'utf8');
    expect(added).toMatch(/import (\w+) from '@coatcheck\/astro';[^]*integrations: \[\1\(\)\]/);
    const { dependencies } = JSON.parse(await readFile(join(app, 'package.json'), 'utf8'));
    expect(dependencies['@coatcheck/astro']).toMatch(/^\^\d/);

    const log = await cli(app, 'build');
    expect(log).toContain('[@coatcheck/astro] The site has no adapter.');
    expect(log).toContain('Run `npx astro add node`');
    expect(await readFile(join(app, 'dist/index.html'), 'utf8')).toContain('an empty site');
  });

  test('`astro check` sees the types of the session and of `locals`', { timeout: 600_000 }, async () => {
    await write(app, {
      'astro.config.mjs': config,
      'src/session-schema.ts': schema,
      'src/pages/index.astro': typed,
      'src/pages/wrong.astro': wrong,
    });
    const failed = await cli(app, 'check').catch((error: Error) => error.message);
    const found = [...stripVTControlCharacters(failed).matchAll(/([\w-]+\.\w+):(\d+):\d+ - error/g)];
    const lines = new Set(found.map(([, file, line]) => `${file}:${line}`));
    expect([...lines].sort()).toEqual([5, 6, 7, 8, 9, 10, 11, 12, 13].map((line) => `wrong.astro:${line}`).sort());
  });
});
