import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { services } from '../packages/session-unstorage/test/support/services.ts';
import { createVisitor } from './support/http.ts';
import { startRedis } from './support/redis-server.ts';
import { isAShop } from './support/shop.ts';
import { buildSite, devSite, startSite, type Built, type SiteSpec } from './support/site.ts';

// `Astro.session` on drivers of unstorage, in an entrypoint of the site's own.

/** A site with this module as its session driver. */
const siteWith = (entrypoint: string, files: Record<string, string> = {}): SiteSpec => ({
  astro: '7-storage',
  driver: `{ entrypoint: new URL('./src/session-driver.ts', import.meta.url) }`,
  files: { 'src/session-driver.ts': entrypoint, ...files },
});

const source = (path: string): string => readFileSync(new URL(path, import.meta.url), 'utf8');

/** As the README shows it: the test below says so. */
const onRedis = `import { fromUnstorage } from '@coatcheck/session-unstorage';
import { getSecret } from 'astro:env/server';
import redis from 'unstorage/drivers/redis';

export default () => fromUnstorage(redis({ url: getSecret('REDIS_URL') }));
`;
const onLruCache = onRedis
  .replace(/import \{ getSecret.*\n/, '')
  .replace('drivers/redis', 'drivers/lru-cache')
  .replace('import redis', 'import lruCache')
  .replace(/redis\(.*?\)\)/, 'lruCache({ max: 1000 }))');
const onFsLite = onRedis
  .replace('drivers/redis', 'drivers/fs-lite')
  .replace('import redis', 'import fsLite')
  .replace(/redis\(.*?\)\)/, "fsLite({ base: getSecret('FOLDER') }))");

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'coatcheck-unstorage-site-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

test('the README shows the entrypoint that is tried here', () => {
  expect(source('../packages/session-unstorage/README.md')).toContain(onRedis);
});

describe('a built site', { timeout: 200_000 }, () => {
  test('is a shop on redis, and keeps its sessions when it is restarted', async () => {
    await using redis = await startRedis();
    const built = await buildSite(siteWith(onRedis));
    const start = () => startSite(built, { env: { REDIS_URL: redis.url } });
    const first = await start();
    await isAShop(first);
    const visitor = createVisitor(first.url);
    await visitor.run([['set', 'cart:hat', 2]]);
    await first.stop();
    await using second = await start();
    expect(await visitor.fork(second.url).run([['get', 'cart:hat']])).toEqual([2]);
  });

  test('is a shop on fs-lite, and keeps its sessions when it is restarted', async () => {
    const built = await buildSite(siteWith(onFsLite));
    const env = { FOLDER: newFolder() };
    const first = await startSite(built, { env });
    await isAShop(first);
    const visitor = createVisitor(first.url);
    await visitor.run([['set', 'cart:hat', 2]]);
    await first.stop();
    await using second = await startSite(built, { env });
    expect(await visitor.fork(second.url).run([['get', 'cart:hat']])).toEqual([2]);
  });

  test('is a shop on lru-cache', async () => {
    const built = await buildSite(siteWith(onLruCache));
    await using site = await startSite(built);
    await isAShop(site);
    expect(built.log).not.toContain('[WARN]');
  });

  test('64 requests that each set a key of their own: 64 keys, ten times in a row, on fs-lite', async () => {
    await using site = await startSite(await buildSite(siteWith(onFsLite)), { env: { FOLDER: newFolder() } });
    const names = Array.from({ length: 64 }, (_, index) => `key${index}`);
    for (let round = 0; round < 10; round++) {
      const visitor = createVisitor(site.url);
      await visitor.run([['set', 'seed', round]]);
      await Promise.all(names.map((name, index) => visitor.fork().run([['set', name, index]])));
      const [keys] = await visitor.run([['keys']]);
      expect(new Set(keys as string[])).toEqual(new Set(['seed', ...names]));
    }
  });
});

test('`astro dev` is a shop', { timeout: 60_000 }, async () => {
  await using dev = await devSite({ ...siteWith(onFsLite), env: { FOLDER: newFolder() } });
  await isAShop(dev);
});

describe('one built site', { timeout: 60_000 }, () => {
  const entrypoint = `import { fromUnstorage } from '@coatcheck/session-unstorage';
import { makeDriver } from './make-driver.ts';

export default () => fromUnstorage(makeDriver[process.env.STORAGE](JSON.parse(process.env.STORAGE_OPTIONS)));
`;
  let built: Built;

  beforeAll(async () => {
    const makeDriver = source('../packages/session-unstorage/test/support/make-driver.ts');
    built = await buildSite(siteWith(entrypoint, { 'src/make-driver.ts': makeDriver }));
  }, 200_000);

  test.each(Object.entries(services))('is a shop on unstorage/drivers/%s', async (name, start) => {
    const options = await start((cleanUp) => onTestFinished(async () => void (await cleanUp())));
    await using site = await startSite(built, { env: { STORAGE: name, STORAGE_OPTIONS: JSON.stringify(options) } });
    await isAShop(site);
  });
});
