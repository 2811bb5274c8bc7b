import { globSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { newFolder } from './support/folder.ts';
import { createVisitor } from './support/http.ts';
import { astros } from './support/scope.ts';
import { isAShop } from './support/shop.ts';
import { buildSite, devSite, startSite, type Built, type Site, type SiteSpec } from './support/site.ts';
import { keepDestroyedSessionsDestroyed, loseNoUpdates } from './support/two-servers.ts';

// `Astro.session` on the local disk: a site built by `@astrojs/node` runs in folders that did not exist during the build.

interface Driver {
  astro: SiteSpec['astro'];
  /** The driver with its default options. */
  plain: string;
  /** The driver with the option that says where its sessions are: a JavaScript expression. */
  withPath(path: string): string;
  /** The default of that option. */
  path: string;
}

const fs: Driver = {
  astro: '7-storage',
  plain: 'fsDriver()',
  withPath: (path) => `fsDriver({ directory: ${path} })`,
  path: '.sessions',
};
const sqlite = (astro: SiteSpec['astro']): Driver => ({
  astro,
  plain: 'sqliteDriver()',
  withPath: (path) => `sqliteDriver({ file: ${path} })`,
  path: '.sessions/sessions.db',
});

/** What a driver has stored in a folder. */
const filesIn = (folder: string): string[] => globSync('{*/*,sessions.db}', { cwd: join(folder, '.sessions') });

describe.each([fs, ...astros.map(sqlite)])('$plain on Astro $astro', ({ astro, plain, withPath, path }) => {
  let built: Built;

  beforeAll(async () => {
    built = await buildSite({ astro, driver: plain });
  });

  const startIn = (folder: string): Promise<Site> => startSite({ ...built, dir: folder });

  test('passes the shop scenario', async () => {
    await using site = await startIn(newFolder());
    await isAShop(site);
  });

  test('keeps its sessions in the folder where the server was started, and not in the build', async () => {
    const [one, other] = [newFolder(), newFolder()];
    await using first = await startIn(one);
    await using second = await startIn(other);
    const visitor = createVisitor(first.url);
    await visitor.run([['set', 'user', 'ada']]);
    expect(filesIn(one)).toHaveLength(1);
    expect(await visitor.fork(second.url).run([['get', 'user']])).toEqual([undefined]);
    const modules = globSync('**/*.{js,mjs}', { cwd: built.dist }).map((name) => join(built.dist, name));
    expect(modules.filter((name) => readFileSync(name, 'utf8').includes(`/${path}`))).toEqual([]);
  });

  test.each(['stop', 'kill'] as const)('keeps its sessions after a %s', async (end) => {
    const folder = newFolder();
    const first = await startIn(folder);
    const visitor = createVisitor(first.url);
    await visitor.run([['set', 'cart:hat', 2]]);
    await first[end]();
    await using second = await startIn(folder);
    expect(await visitor.fork(second.url).run([['get', 'cart:hat']])).toEqual([2]);
  });

  test.each([
    ['64 concurrent requests that set 64 keys lose no updates, three times in a row', loseNoUpdates],
    ['late requests on one do not restore a session that was destroyed on the other', keepDestroyedSessionsDestroyed],
  ])('two servers in one folder: %s', async (_name, isSafe) => {
    const folder = newFolder();
    await using first = await startIn(folder);
    await using second = await startIn(folder);
    await isSafe(first, second);
  });

  test('reports an unusable folder, and works as soon as it is fixed', async () => {
    const folder = newFolder();
    writeFileSync(join(folder, '.sessions'), '');
    await using site = await startIn(folder);
    const visitor = createVisitor(site.url);
    expect(await visitor.attempt([['set', 'user', 'ada']])).toMatchObject({ status: 500 });
    await site.logged(/\[session-(?:fs|sqlite)\] .*\.sessions.*\((?:EEXIST|ENOTDIR)\)/);
    rmSync(join(folder, '.sessions'));
    await visitor.run([['set', 'user', 'ada']]);
    expect(await visitor.run([['get', 'user']])).toEqual(['ada']);
  });

  test('goes on without a restart if the folder is removed', async () => {
    const folder = newFolder();
    await using site = await startIn(folder);
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'user', 'ada']]);
    rmSync(join(folder, '.sessions'), { recursive: true });
    // SQLite's driver checks once a second.
    await expect.poll(() => visitor.run([['get', 'user']])).toEqual([undefined]);
    await visitor.run([['set', 'user', 'bob']]);
    expect(await visitor.run([['get', 'user']])).toEqual(['bob']);
    expect(filesIn(folder)).toHaveLength(1);
  });

  test('sites with different prefixes can share a path from an environment variable, and do not see each other', async () => {
    const driver = withPath(`fromEnv('SESSIONS_PATH'), prefix: fromEnv('PREFIX')`);
    const site = await buildSite({ astro, driver });
    const env = { SESSIONS_PATH: join(newFolder(), path) };
    await using shop = await startSite(site, { env: { ...env, PREFIX: 'shop:' } });
    await using blog = await startSite(site, { env: { ...env, PREFIX: 'blog:' } });
    const visitor = createVisitor(shop.url);
    await visitor.run([['set', 'site', 'shop']]);
    const same = visitor.fork(blog.url);
    expect(await same.run([['get', 'site']])).toEqual([undefined]);
    await same.run([['destroy']]);
    expect(await visitor.run([['get', 'site']])).toEqual(['shop']);
  });

  test('`astro dev` passes the shop scenario, and uses another path after the config changes', async () => {
    const folder = newFolder();
    await using dev = await devSite({ astro, driver: plain });
    await isAShop(dev);
    const visitor = createVisitor(dev.url);
    await visitor.run([['set', 'user', 'ada']]);
    await dev.edit('astro.config.mjs', (text) => text.replace(plain, withPath(`'${join(folder, path)}'`)));
    await dev.logged(/server restarted/);
    await expect
      .poll(() => visitor.attempt([['get', 'user']]))
      .toMatchObject({
        outcomes: [{ value: undefined }],
      });
    await createVisitor(dev.url).run([['set', 'user', 'bob']]);
    expect(filesIn(folder)).toHaveLength(1);
  });
});
