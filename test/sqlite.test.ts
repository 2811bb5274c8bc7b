import { expect, test } from 'vitest';
import { createVisitor } from './support/http.ts';
import { astros } from './support/scope.ts';
import { isAShop } from './support/shop.ts';
import { buildSite, startSite } from './support/site.ts';

// `Astro.session` on Sqlite, in real sites.

test.each(astros)('a built site on Astro %i is a shop', async (astro) => {
  const built = await buildSite({ astro, driver: 'sqliteDriver()' });
  await using site = await startSite(built, { env: { SQLITE_URL: 'test' } });
  await isAShop(site);
  const visitor = createVisitor(site.url);
  await visitor.run([['set', 'cart:hat', 2]]);
  expect(await visitor.run([['get', 'cart:hat']])).toEqual([2]);
  // TODO: start a second site on the same backend, and expect the cart there.
});
