import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { startWorkers, workerSite } from '../packages/session-cloudflare-kv/test/support/site.ts';
import { services } from '../packages/session-unstorage/test/support/services.ts';
import { newFolder } from './support/folder.ts';
import { createVisitor } from './support/http.ts';
import { startRedis } from './support/redis-server.ts';
import { everything } from './support/scope.ts';
import { isAShop } from './support/shop.ts';
import { buildSite, devSite, startSite, type Built, type Site, type SiteSpec } from './support/site.ts';

// `Astro.session` on unstorage drivers, in the site's own entrypoint.

const driver = `{ entrypoint: new URL('./src/session-driver.ts', import.meta.url) }`;

/** A site whose session driver is this module. */
const siteWith = (entrypoint: string, files: Record<string, string> = {}): SiteSpec => ({
  astro: '7-storage',
  driver,
  files: { 'src/session-driver.ts': entrypoint, ...files },
});

const source = (path: string): string => readFileSync(new URL(path, import.meta.url), 'utf8');

/** The entrypoint in the README; the test below compares them. */
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

/** An entrypoint for a Worker, which gets the binding from Cloudflare's own module. */
const onWorkersKv = `import { env } from 'cloudflare:workers';
import { fromUnstorage } from '@coatcheck/session-unstorage';
import cloudflareKVBinding from 'unstorage/drivers/cloudflare-kv-binding';

export default () => fromUnstorage(cloudflareKVBinding({ binding: env.SESSION }));
`;

test('the README shows the entrypoints that are tested here', () => {
  const readme = source('../packages/session-unstorage/README.md');
  expect(readme).toContain(onRedis);
  expect(readme).toContain(onWorkersKv);
});

describe('a built site', () => {
  test('passes the shop scenario on redis, and keeps its sessions when it is restarted', async () => {
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

  test('64 concurrent requests that set 64 keys on redis lose no updates, ten times in a row', async () => {
    await using redis = await startRedis();
    const built = await buildSite(siteWith(onRedis));
    await using site = await startSite(built, { env: { REDIS_URL: redis.url } });
    await isCompleteAfter64Requests(site);
  });

  test.runIf(everything)(
    'passes the shop scenario on fs-lite, and keeps its sessions when it is restarted',
    async () => {
      const built = await buildSite(siteWith(onFsLite));
      const env = { FOLDER: newFolder() };
      const first = await startSite(built, { env });
      await isAShop(first);
      const visitor = createVisitor(first.url);
      await visitor.run([['set', 'cart:hat', 2]]);
      await first.stop();
      await using second = await startSite(built, { env });
      expect(await visitor.fork(second.url).run([['get', 'cart:hat']])).toEqual([2]);
    },
  );

  test.runIf(everything)('passes the shop scenario on lru-cache', async () => {
    const built = await buildSite(siteWith(onLruCache));
    await using site = await startSite(built);
    await isAShop(site);
    expect(built.log).not.toContain('[WARN]');
  });
});

describe.runIf(everything)('a Worker, on cloudflare-kv-binding', () => {
  const spec = workerSite({ driver, files: { 'src/session-driver.ts': onWorkersKv } });

  test('passes the shop scenario when built, and loses no updates of 64 concurrent requests', async () => {
    const built = await buildSite(spec);
    await using workers = await startWorkers(built.dist);
    const url = workers.urls[0]!;
    await isAShop({ url });

    const visitor = createVisitor(url);
    await visitor.run([['set', 'seed', 0]]);
    const names = Array.from({ length: 64 }, (_, index) => `key${index}`);
    await Promise.all(
      names.map((name, index) =>
        visitor.fork().run([
          ['get', 'seed'],
          ['jitter', 50],
          ['set', name, index],
        ]),
      ),
    );
    const [keys] = await visitor.run([['keys']]);
    expect(new Set(keys as string[])).toEqual(new Set(['seed', ...names]));

    const namespace = await workers.miniflare.getKVNamespace('SESSION', 'isolate-0');
    const { keys: stored } = await namespace.list();
    expect(stored.filter(({ expiration }) => expiration === undefined)).toEqual([]);
  });

  test('reports that unstorage does not find a binding by its name', async () => {
    const named = onWorkersKv.replace(/import \{ env.*\n/, '').replace('env.SESSION', "'SESSION'");
    const built = await buildSite(workerSite({ driver, files: { 'src/session-driver.ts': named } }));
    await using workers = await startWorkers(built.dist);
    const { outcomes } = await createVisitor(workers.urls[0]!).attempt([['load', crypto.randomUUID()]]);
    expect(JSON.stringify(outcomes)).toContain('Invalid binding `SESSION`');
  });

  test('passes the shop scenario in `astro dev`', async () => {
    await using dev = await devSite(spec);
    await isAShop({ url: dev.url });
    // SIGTERM, unlike SIGKILL, also ends its workerd.
    await dev.stop();
  });
});

test.runIf(everything)('`astro dev` passes the shop scenario', async () => {
  await using dev = await devSite({ ...siteWith(onFsLite), env: { FOLDER: newFolder() } });
  await isAShop(dev);
});

describe.runIf(everything)('one built site', () => {
  const entrypoint = `import { fromUnstorage } from '@coatcheck/session-unstorage';
import { makeDriver } from './make-driver.ts';

export default () => fromUnstorage(makeDriver[process.env.STORAGE](JSON.parse(process.env.STORAGE_OPTIONS)));
`;
  let built: Built;

  beforeAll(async () => {
    const makeDriver = source('../packages/session-unstorage/test/support/make-driver.ts');
    built = await buildSite(siteWith(entrypoint, { 'src/make-driver.ts': makeDriver }));
  });

  test.each(Object.entries(services))('passes the shop scenario on unstorage/drivers/%s', async (name, start) => {
    const options = await start((cleanUp) => onTestFinished(async () => void (await cleanUp())));
    await using site = await startSite(built, { env: { STORAGE: name, STORAGE_OPTIONS: JSON.stringify(options) } });
    await isAShop(site);
  });

  test('64 concurrent requests that set 64 keys on fs-lite lose no updates, ten times in a row', async () => {
    const env = { STORAGE: 'fs-lite', STORAGE_OPTIONS: JSON.stringify({ base: newFolder() }) };
    await using site = await startSite(built, { env });
    await isCompleteAfter64Requests(site);
  });
});

async function isCompleteAfter64Requests(site: Site): Promise<void> {
  const names = Array.from({ length: 64 }, (_, index) => `key${index}`);
  for (let round = 0; round < 10; round++) {
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'seed', round]]);
    await Promise.all(names.map((name, index) => visitor.fork().run([['set', name, index]])));
    const [keys] = await visitor.run([['keys']]);
    expect(new Set(keys as string[])).toEqual(new Set(['seed', ...names]));
  }
}
