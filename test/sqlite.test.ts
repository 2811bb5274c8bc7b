import { existsSync, globSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { newFolder } from './support/folder.ts';
import { createVisitor } from './support/http.ts';
import { astros } from './support/scope.ts';
import { isAShop } from './support/shop.ts';
import { buildSite, devSite, startSite, type Built, type Site } from './support/site.ts';
import { keepDestroyedSessionsDestroyed, loseNoUpdates } from './support/two-servers.ts';

// `Astro.session` in an SQLite file: a site built by `@astrojs/node` runs in folders that did not exist during the build.

const FILE = '.sessions/sessions.db';

describe.each(astros)('a built site on Astro %i', (astro) => {
  let built: Built;

  beforeAll(async () => {
    built = await buildSite({ astro, driver: 'sqliteDriver()' });
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
    expect(existsSync(join(one, FILE))).toBe(true);
    expect(await visitor.fork(second.url).run([['get', 'user']])).toEqual([undefined]);
    const modules = globSync('**/*.{js,mjs}', { cwd: built.dist }).map((name) => join(built.dist, name));
    expect(modules.filter((path) => readFileSync(path, 'utf8').includes(`/${FILE}`))).toEqual([]);
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
  ])('two servers on one file: %s', async (_name, isSafe) => {
    const folder = newFolder();
    await using first = await startIn(folder);
    await using second = await startIn(folder);
    await isSafe(first, second);
  });

  test('goes on without a restart if the folder is removed', async () => {
    const folder = newFolder();
    await using site = await startIn(folder);
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'user', 'ada']]);
    rmSync(join(folder, '.sessions'), { recursive: true });
    // The driver checks once a second.
    await expect.poll(() => visitor.run([['get', 'user']])).toEqual([undefined]);
    await visitor.run([['set', 'user', 'bob']]);
    expect(await visitor.run([['get', 'user']])).toEqual(['bob']);
    expect(existsSync(join(folder, FILE))).toBe(true);
  });
});

test('sites with different prefixes can share a file from an environment variable, and do not see each other', async () => {
  const driver = `sqliteDriver({ file: fromEnv('SESSIONS_FILE'), prefix: fromEnv('PREFIX') })`;
  const built = await buildSite({ astro: 7, driver });
  const env = { SESSIONS_FILE: join(newFolder(), 'sessions.db') };
  await using shop = await startSite(built, { env: { ...env, PREFIX: 'shop:' } });
  await using blog = await startSite(built, { env: { ...env, PREFIX: 'blog:' } });
  const visitor = createVisitor(shop.url);
  await visitor.run([['set', 'site', 'shop']]);
  const same = visitor.fork(blog.url);
  expect(await same.run([['get', 'site']])).toEqual([undefined]);
  await same.run([['destroy']]);
  expect(await visitor.run([['get', 'site']])).toEqual(['shop']);
});

test('`astro dev` passes the shop scenario, and uses another file after the config changes', async () => {
  const file = join(newFolder(), 'sessions.db');
  await using dev = await devSite({ astro: 7, driver: 'sqliteDriver()' });
  await isAShop(dev);
  const visitor = createVisitor(dev.url);
  await visitor.run([['set', 'user', 'ada']]);
  await dev.edit('astro.config.mjs', (text) => text.replace('sqliteDriver()', `sqliteDriver({ file: '${file}' })`));
  await dev.logged(/server restarted/);
  await expect
    .poll(() => visitor.attempt([['get', 'user']]))
    .toMatchObject({
      outcomes: [{ value: undefined }],
    });
  await createVisitor(dev.url).run([['set', 'user', 'bob']]);
  expect(existsSync(file)).toBe(true);
});
