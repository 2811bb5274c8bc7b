import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { createVisitor } from './support/http.ts';
import { sharedPostgres, startPostgres } from './support/postgres-server.ts';
import { astros } from './support/scope.ts';
import { isAShop } from './support/shop.ts';
import { BUILD_PASSWORD, buildSite, devSite, startSite, type Built, type Site } from './support/site.ts';
import { keepDestroyedSessionsDestroyed, loseNoUpdates } from './support/two-servers.ts';

// `Astro.session` on PostgreSQL, in real sites.

const newDatabase = async (): Promise<string> => (await sharedPostgres()).createDatabase();

describe.each(astros)('a built site on Astro %i', (astro) => {
  let built: Built;

  beforeAll(async () => {
    const env = { DATABASE_URL: `postgres://shop:${BUILD_PASSWORD}@127.0.0.1:1/shop` };
    built = await buildSite({ astro, driver: 'postgresDriver()', env });
  });

  const start = (url: string, env = {}): Promise<Site> => startSite(built, { env: { DATABASE_URL: url, ...env } });

  test('passes the shop scenario', async () => {
    await using site = await start(await newDatabase());
    await isAShop(site);
  });

  test('keeps its sessions when it is restarted or killed', async () => {
    const url = await newDatabase();
    const first = await start(url);
    const visitor = createVisitor(first.url);
    await visitor.run([['set', 'cart:hat', 2]]);
    await first.kill();
    await using second = await start(url);
    expect(await visitor.fork(second.url).run([['get', 'cart:hat']])).toEqual([2]);
  });

  // oxlint-disable-next-line vitest/expect-expect -- in the scenarios
  test('two servers on one database: concurrent requests lose no updates, and a destroyed session stays destroyed', async () => {
    const url = await newDatabase();
    await using first = await start(url);
    await using second = await start(url);
    await loseNoUpdates(first, second);
    await keepDestroyedSessionsDestroyed(first, second);
  });

  test('has no password in its build', () => {
    const files = globSync('**/*', { cwd: built.dist, withFileTypes: true }).filter((file) => file.isFile());
    const texts = files.map(({ parentPath, name }) => readFileSync(join(parentPath, name), 'utf8'));
    expect(texts.length).toBeGreaterThan(0);
    expect(texts.filter((text) => text.includes(BUILD_PASSWORD))).toEqual([]);
  });

  test('PostgreSQL is killed: requests fail within the deadline, and sessions work again without a restart of the site', async () => {
    await using server = await startPostgres();
    await using site = await start(server.url);
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'cart', 'hat']]);
    await server.kill();
    expect(await visitor.attempt([['get', 'cart']])).toMatchObject({
      status: 200,
      outcomes: [{ error: { code: 'unavailable' } }],
    });
    expect(await visitor.attempt([['set', 'lost', true]])).toMatchObject({ status: 500 });
    await server.restart();
    await expect.poll(() => visitor.attempt([['get', 'cart']])).toMatchObject({ outcomes: [{ value: 'hat' }] });
    expect(await visitor.run([['keys']])).toEqual([['cart']]);
  });
});

test('`astro dev` reads DATABASE_URL from `.env`', async () => {
  const url = await newDatabase();
  await using dev = await devSite({ astro: 7, driver: 'postgresDriver()', files: { '.env': `DATABASE_URL=${url}\n` } });
  await isAShop(dev);
  const rows = await (await sharedPostgres()).query('SELECT key FROM coatcheck_sessions', [], url);
  expect(rows.length).toBeGreaterThan(0);
});

test('a site can use a client of its own, such as one that works over HTTP, from a module', async () => {
  const url = await newDatabase();
  const module = `
    import postgres from '@coatcheck/session-postgres/runtime';
    import pg from ${JSON.stringify(import.meta.resolve('pg'))};
    const client = new pg.Pool({ connectionString: process.env.DATABASE_URL });
    export default () => postgres({ client });
  `;
  const built = await buildSite({
    astro: 7,
    driver: `{ entrypoint: new URL('./src/sessions.js', import.meta.url) }`,
    files: { 'src/sessions.js': module },
  });
  await using site = await startSite(built, { env: { DATABASE_URL: url } });
  await isAShop(site);
});
