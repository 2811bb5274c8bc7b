import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startSqld, type Sqld } from '../packages/session-libsql/test/support/sqld.ts';
import { newFolder } from './support/folder.ts';
import { createVisitor } from './support/http.ts';
import { astros } from './support/scope.ts';
import { isAShop } from './support/shop.ts';
import { buildSite, devSite, startSite, type Built, type Site } from './support/site.ts';
import { keepDestroyedSessionsDestroyed, loseNoUpdates } from './support/two-servers.ts';

// `Astro.session` on a libSQL server, in real sites.

let server: Sqld;
let env: Record<string, string>;

beforeAll(async () => {
  server = await startSqld();
  env = { TURSO_DATABASE_URL: server.url, TURSO_AUTH_TOKEN: server.authToken };
});
afterAll(() => server?.[Symbol.asyncDispose]());

describe.each(astros)('a built site on Astro %i', (astro) => {
  let built: Built;
  beforeAll(async () => {
    built = await buildSite({ astro, driver: 'libsqlDriver()' });
  });
  const start = (): Promise<Site> => startSite(built, { env });

  test('passes the shop scenario, and keeps its sessions after a restart', async () => {
    const visitor = await (async () => {
      await using site = await start();
      await isAShop(site);
      const first = createVisitor(site.url);
      await first.run([['set', 'cart:hat', 2]]);
      return first;
    })();
    await using site = await start();
    expect(await visitor.fork(site.url).run([['get', 'cart:hat']])).toEqual([2]);
  });

  test.each([
    ['64 concurrent requests that set 64 keys lose no updates, three times in a row', loseNoUpdates],
    ['late requests on one do not restore a session that was destroyed on the other', keepDestroyedSessionsDestroyed],
  ])('two servers on one database: %s', async (_name, isSafe) => {
    await using first = await start();
    await using second = await start();
    await isSafe(first, second);
  });
});

test('`astro dev` passes the shop scenario', async () => {
  await using dev = await devSite({ astro: 7, driver: 'libsqlDriver()' }, { env });
  await isAShop(dev);
});

test('`astro dev` passes the shop scenario with a file', async () => {
  const url = pathToFileURL(join(newFolder(), 'sessions.db')).href;
  await using dev = await devSite({ astro: 7, driver: 'libsqlDriver()' }, { env: { TURSO_DATABASE_URL: url } });
  await isAShop(dev);
});
