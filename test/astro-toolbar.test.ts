import { readdir, readFile } from 'node:fs/promises';
import { request as httpRequest } from 'node:http';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { workerSite } from '../packages/session-cloudflare-kv/test/support/site.ts';
import { startChromium } from './support/chromium.ts';
import { createVisitor, type Answer, type Visitor } from './support/http.ts';
import { astros } from './support/scope.ts';
import { buildSite, devSite, startSite, type DevSite, type SiteSpec } from './support/site.ts';

// The app of `@coatcheck/astro` in Astro's dev toolbar: its endpoint, which `astro dev` alone has, and the app itself in Chromium.

const PATH = '/_coatcheck/session.json';

const files = {
  'src/pages/shop.astro': `---
    const { session } = Astro;
    if (Astro.url.searchParams.has('fill')) {
      session.set('user', { name: 'Ada Lovelace' });
      session.set('cart', new Map([['hat', 2]]));
      session.set('notice', 'Welcome back!', { ttl: 600 });
    }
    if (Astro.url.searchParams.has('long')) {
      session.set('longValue', 'x'.repeat(4000));
      session.set('shoppingCartOfTheVisitor', 'v '.repeat(500));
      session.set('k'.repeat(198), 1);
    }
    const user = await session.get('user');
    ---
    <html lang="en"><head><title>Shop</title></head><body><h1>Shop</h1><p id="user">{user?.name ?? 'nobody'}</p></body></html>`,
  'src/pages/late.ts': `
    import { passGate } from '../gates.ts';
    export const GET = async ({ session, url }) => {
      await session.get('user');
      await passGate(url.searchParams.get('gate'));
      session.set('user', 'late');
      return new Response('late');
    };`,
  'src/pages/race.ts': `
    export const GET = ({ session }) => {
      session.set('race', { constructor: { name: 'SECRET' } });
      return new Response('set');
    };`,
  'src/pages/rewritten.ts': `export const GET = ({ rewrite }) => rewrite('/shop?fill');`,
  'src/pages/current.ts': `
    export const GET = async ({ locals, session }) =>
      Response.json({ current: await locals.sessions.current(), keys: [...(await session.keys())] });`,
  // The middleware of the site does not come between the app and its session.
  'src/middleware.ts': `
    export const onRequest = ({ url, redirect }, next) => (url.pathname.startsWith('/_') ? redirect('/login') : next());`,
};

function siteWith(astro: 6 | 7, { toolbar = 'true', base = '/', more = '' } = {}): SiteSpec {
  const config = `
    import node from '@astrojs/node';
    import coatcheck from '@coatcheck/astro';
    import { memoryDriver } from '@coatcheck/session-memory';
    import { defineConfig } from 'astro/config';
    export default defineConfig({
      output: 'server',
      base: '${base}',
      adapter: node({ mode: 'standalone' }),
      devToolbar: { enabled: ${toolbar} },
      integrations: [coatcheck()],
      session: { driver: memoryDriver(), ttl: 86_400 },
      ${more}
    });`;
  return { astro, driver: '', files: { ...files, 'astro.config.mjs': config } };
}

/** What runs in the browser uses this. */
interface Browsing {
  getComputedStyle(it: unknown): { backgroundColor: string };
}

interface Focusing {
  getRootNode(): { activeElement: { ariaLabel: string | null; textContent: string } | null };
}

interface AppOptions {
  scheme?: 'light' | 'dark';
  width?: number;
  /** The query of the page that fills the session. */
  fill?: string;
}

/** Asks as the app does in a browser. */
function ask(
  visitor: Visitor,
  question: object,
  {
    path = PATH,
    method = 'POST',
    headers = {},
  }: { path?: string; method?: string; headers?: Record<string, string> } = {},
): Promise<Answer> {
  const all = { 'content-type': 'application/json', 'x-coatcheck-toolbar': '1', ...headers };
  return visitor.fetch(path, { method, headers: all, ...(method === 'POST' && { body: JSON.stringify(question) }) });
}

interface Shown {
  session: { handle: string; expires: string | null; entries: { key: string; type: string; bytes: number }[] } | null;
  hasCookie: boolean;
  requests: {
    path: string;
    operations: { operation: string }[];
    events: string[];
    reads: string[];
    writes: string[];
  }[];
}

async function show(visitor: Visitor): Promise<Shown> {
  const { status, body } = await ask(visitor, { action: 'show' });
  expect([status, body]).toEqual([200, expect.any(String)]);
  return JSON.parse(body) as Shown;
}

async function filledVisitor(url: string): Promise<Visitor> {
  const visitor = createVisitor(url);
  expect((await visitor.fetch('/shop?fill')).status).toBe(200);
  return visitor;
}

describe.each(astros)('in `astro dev` on Astro %i, the endpoint', (astro) => {
  let site: DevSite;
  beforeAll(async () => {
    site = await devSite(siteWith(astro));
  });
  afterAll(() => site?.[Symbol.asyncDispose]());

  test('sends no part of a value as its type', async () => {
    const visitor = createVisitor(site.url);
    await visitor.fetch('/race');
    expect((await show(visitor)).session!.entries).toMatchObject([{ key: 'race', type: 'Object' }]);
  });

  test('does not come between a page and the cookie of a session that begins after a rewrite', async () => {
    const visitor = createVisitor(site.url);
    expect((await visitor.fetch('/rewritten')).status).toBe(200);
    expect((await visitor.fetch('/shop')).body).toContain('Ada Lovelace');
  });

  test('describes the session of the cookie, without values and without its id', async () => {
    const visitor = await filledVisitor(site.url);
    const answer = await ask(visitor, { action: 'show' });
    expect(answer.headers.get('cache-control')).toBe('no-store');
    expect(answer.headers.getSetCookie()).toEqual([]);
    const { session, hasCookie } = JSON.parse(answer.body) as Shown;
    expect(hasCookie).toBe(true);
    expect(session).toEqual({
      handle: expect.stringMatching(/^[\w-]{22}$/),
      expires: expect.stringMatching(/Z$/),
      entries: ['cart', 'notice', 'user'].map((key) => expect.objectContaining({ key })),
    });
    const types = Object.fromEntries(session!.entries.map(({ key, type, bytes }) => [key, [type, bytes]]));
    expect(types).toEqual({
      cart: ['Map', expect.any(Number)],
      notice: ['string', '["Welcome back!"]'.length],
      user: ['Object', expect.any(Number)],
    });
    for (const secret of ['Ada', 'hat', 'Welcome', visitor.sessionId()!]) expect(answer.body).not.toContain(secret);
    // Only its own session: another visitor has none.
    expect(await show(createVisitor(site.url))).toEqual({ session: null, hasCookie: false, requests: [] });
  });

  test('tells the value of one key', async () => {
    const visitor = await filledVisitor(site.url);
    const { body } = await ask(visitor, { action: 'reveal', key: 'cart' });
    expect(JSON.parse(JSON.parse(body).value)).toEqual([['hat', 2]]);
    expect((await ask(visitor, { action: 'reveal', key: 'hat' })).status).toBe(409);
  });

  test('tells what the last requests read and wrote, and how long it took', async () => {
    const visitor = await filledVisitor(site.url);
    await visitor.fetch('/shop');
    await filledVisitor(site.url);
    const { requests } = await show(visitor);
    expect(requests.map(({ path, operations }) => [path, operations.map(({ operation }) => operation)])).toEqual([
      ['/shop', ['read']],
      // Astro looks for the new session before it saves it.
      ['/shop', ['read', 'read', 'patch']],
    ]);
    expect(requests[0]).toEqual({
      method: 'GET',
      path: '/shop',
      at: expect.any(Number),
      operations: [{ operation: 'read', ms: expect.any(Number) }],
      events: [],
      reads: ['user'],
      writes: [],
    });
    expect(requests[1]).toMatchObject({ reads: ['user'], writes: ['user', 'cart', 'notice'] });
    await visitor.fetch('/current');
    expect((await show(visitor)).requests[0]).toMatchObject({ path: '/current', reads: ['all keys'], writes: [] });
  });

  test('tells what was dropped', async () => {
    const visitor = await filledVisitor(site.url);
    const elsewhere = visitor.fork();
    const gate = site.gate('late');
    const late = visitor.fetch('/late?gate=late');
    await gate.arrived();
    await elsewhere.run([['destroy']]);
    await gate.open();
    await late;
    // Astro has sent the cookie of the destroyed session again.
    const { session, hasCookie, requests } = await show(visitor);
    expect([session, hasCookie]).toEqual([null, true]);
    expect(requests.find(({ path }) => path === '/late')).toMatchObject({
      operations: [{ operation: 'read' }, { operation: 'patch' }],
      events: ['destroyed-write'],
      writes: ['user'],
    });
  });

  test('deletes a key', async () => {
    const visitor = await filledVisitor(site.url);
    await ask(visitor, { action: 'delete', key: 'user' });
    const { session } = await show(visitor);
    expect(session!.entries.map(({ key }) => key).sort()).toEqual(['cart', 'notice']);
  });

  test('regenerates the session, and still tells what its requests did', async () => {
    const visitor = await filledVisitor(site.url);
    const id = visitor.sessionId();
    const { session: before } = await show(visitor);
    await ask(visitor, { action: 'regenerate' });
    expect(visitor.sessionId()).not.toBe(id);
    const { session, requests } = await show(visitor);
    expect(session!.handle).not.toBe(before!.handle);
    expect(session!.entries).toHaveLength(3);
    expect(requests.map(({ path }) => path)).toEqual(['/shop']);
    expect(await show(createVisitor(site.url, [['astro-session', id!]]))).toMatchObject({ session: null });
  });

  test('lets the session expire, and keeps the cookie', async () => {
    const visitor = await filledVisitor(site.url);
    const id = visitor.sessionId();
    expect((await ask(visitor, { action: 'expire' })).headers.getSetCookie()).toEqual([]);
    expect(await show(visitor)).toMatchObject({ session: null, hasCookie: true });
    // As after a long absence: the page finds no session, and the next one has another id.
    expect(JSON.parse((await visitor.fetch('/current')).body)).toEqual({ current: null, keys: [] });
    expect((await visitor.fetch('/shop')).body).toContain('nobody');
    expect(visitor.sessionId()).toBe(id);
    expect((await visitor.fetch('/shop?fill')).body).toContain('Ada');
    expect(visitor.sessionId()).not.toBe(id);
    expect((await show(visitor)).session!.entries).toHaveLength(3);
  });

  test('destroys the session and removes the cookie', async () => {
    const visitor = await filledVisitor(site.url);
    const id = visitor.sessionId()!;
    await ask(visitor, { action: 'destroy' });
    expect(visitor.sessionId()).toBeUndefined();
    const again = createVisitor(site.url, [['astro-session', id]]);
    expect(await show(again)).toMatchObject({ session: null });
    // There is nothing to act on, and no session begins.
    for (const action of ['regenerate', 'expire', 'destroy'])
      expect([(await ask(again, { action })).status, again.sessionId()]).toEqual([409, id]);
  });

  test.each<[string, number, Parameters<typeof ask>[2]]>([
    ['by GET', 405, { method: 'GET' }],
    ['by PUT', 405, { method: 'PUT' }],
    ['from another origin', 403, { headers: { origin: 'http://evil.example' } }],
    ['from another port', 403, { headers: { origin: 'http://127.0.0.1:1' } }],
    ['from an opaque origin', 403, { headers: { origin: 'null' } }],
    ['from another site', 403, { headers: { 'sec-fetch-site': 'cross-site' } }],
    ['from another origin of this site', 403, { headers: { 'sec-fetch-site': 'same-site' } }],
    ['typed by the user', 403, { headers: { 'sec-fetch-site': 'none' } }],
  ])('refuses a request %s', async (_what, status, init) => {
    const visitor = await filledVisitor(site.url);
    const answer = await ask(visitor, { action: 'destroy' }, init);
    expect(answer.status).toBe(status);
    expect((await show(visitor)).session!.entries).toHaveLength(3);
  });

  test('refuses a request without the header of the app, and one without an origin', async () => {
    const visitor = await filledVisitor(site.url);
    const cookie = `astro-session=${visitor.sessionId()}`;
    const send = async (headers: Record<string, string>): Promise<unknown[]> => {
      const all = { cookie, 'content-type': 'application/json', ...headers };
      const answer = await fetch(site.url + PATH, { method: 'POST', headers: all, body: '{"action":"show"}' });
      return [answer.status, answer.headers.get('cache-control')];
    };
    const [origin, header] = [{ origin: site.url }, { 'x-coatcheck-toolbar': '1' }];
    expect(await send({ ...origin, ...header })).toEqual([200, 'no-store']);
    expect(await send(origin)).toEqual([403, 'no-store']);
    expect(await send(header)).toEqual([403, 'no-store']);
  });

  test('is not there under the name of another host', async () => {
    const visitor = await filledVisitor(site.url);
    const { port } = new URL(site.url);
    const statusFor = (host: string): Promise<number | undefined> =>
      new Promise((resolve, reject) => {
        const headers = {
          host,
          origin: `http://${host}`,
          cookie: `astro-session=${visitor.sessionId()}`,
          'x-coatcheck-toolbar': '1',
        };
        httpRequest({ host: '127.0.0.1', port, path: PATH, method: 'POST', headers }, (response) => {
          response.resume();
          resolve(response.statusCode);
        })
          .on('error', reject)
          .end('{"action":"show"}');
      });
    expect(await statusFor(`127.0.0.1:${port}`)).toBe(200);
    expect(await statusFor(`evil.example:${port}`)).toBe(403);
  });

  test('refuses what is no question', async () => {
    const visitor = await filledVisitor(site.url);
    for (const question of [{}, { action: 'drop' }, { action: 'delete' }, { action: 'reveal', key: 1 }])
      expect((await ask(visitor, question)).status).toBe(400);
  });
});

// Cloudflare's adapter runs the pages in workerd, also in `astro dev`.
test('in a Worker, the endpoint describes the session, and what requests did', async () => {
  const spec = workerSite({ files });
  const config = spec
    .files!['astro.config.mjs']!.replace(
      'import cloudflare',
      "import coatcheck from '@coatcheck/astro';\nimport cloudflare",
    )
    .replace('session: {', 'integrations: [coatcheck()],\n  session: {')
    .replace('enabled: false', 'enabled: true');
  await using site = await devSite({ ...spec, files: { ...spec.files, 'astro.config.mjs': config } });
  // The keys of the first request are not recorded.
  await createVisitor(site.url).fetch('/shop');
  const visitor = await filledVisitor(site.url);
  await visitor.fetch('/shop');
  const { session, requests } = await show(visitor);
  expect(session!.entries.map(({ key }) => key)).toEqual(expect.arrayContaining(['user', 'cart', 'notice']));
  expect(requests.map(({ operations }) => operations.at(-1))).toEqual([
    { operation: 'read', ms: expect.any(Number) },
    { operation: 'patch', ms: expect.any(Number) },
  ]);
  expect(requests.map(({ reads, writes }) => [reads, writes])).toEqual([
    [['user'], []],
    [['user'], ['user', 'cart', 'notice']],
  ]);
  await ask(visitor, { action: 'expire' });
  expect(await show(visitor)).toMatchObject({ session: null, hasCookie: true });
  await visitor.fetch('/shop?fill');
  await ask(visitor, { action: 'destroy' });
  expect(visitor.sessionId()).toBeUndefined();
});

test('the endpoint is under the `base` of the site', async () => {
  await using site = await devSite(siteWith(7, { base: '/docs', more: "trailingSlash: 'always'," }));
  const visitor = createVisitor(site.url);
  expect((await visitor.fetch('/docs/shop/?fill')).status).toBe(200);
  const { status, body } = await ask(visitor, { action: 'show' }, { path: `/docs${PATH}` });
  expect(status).toBe(200);
  expect(JSON.parse(body).session.entries).toHaveLength(3);
});

test.each([
  ['whose backend is down', 'redisDriver()', 502, /^\[session-redis\]/],
  ["with a driver that is not Coatcheck's", 'sessionDrivers.lruCache()', 501, /is not a Coatcheck driver/],
])('on a site %s, the endpoint says so', async (_what, driver, status, message) => {
  const spec = siteWith(7);
  const config = spec
    .files!['astro.config.mjs']!.replace('memoryDriver()', driver)
    .replace('{ defineConfig', '{ defineConfig, sessionDrivers')
    .replace("{ memoryDriver } from '@coatcheck/session-memory'", "{ redisDriver } from '@coatcheck/session-redis'");
  const env = { REDIS_URL: 'redis://127.0.0.1:1' };
  await using site = await devSite({ ...spec, env, files: { ...spec.files, 'astro.config.mjs': config } });
  const visitor = createVisitor(site.url, [['astro-session', crypto.randomUUID()]]);
  const answer = await ask(visitor, { action: 'show' });
  expect([answer.status, answer.body]).toEqual([status, expect.stringMatching(message)]);
});

test('with the toolbar turned off, `astro dev` has no endpoint', async () => {
  await using site = await devSite(siteWith(7, { toolbar: 'false' }));
  const visitor = await filledVisitor(site.url);
  // The middleware of the site runs, which knows no such page.
  expect((await ask(visitor, { action: 'show' })).headers.get('location')).toBe('/login');
});

test.each([{}, { NODE_ENV: 'development' }])('a build contains nothing of it, with the environment %o', async (env) => {
  const { 'src/middleware.ts': _, ...pages } = siteWith(7).files!;
  const built = await buildSite({ ...siteWith(7), env, files: pages });
  const entries = await readdir(built.dist, { recursive: true, withFileTypes: true });
  const texts = await Promise.all(
    entries.filter((it) => it.isFile()).map((it) => readFile(join(it.parentPath, it.name), 'utf8')),
  );
  const all = texts.join('\n');
  // The middleware itself is in it.
  expect(all.includes('-renewed')).toBe(true);
  const traces = ['_coatcheck', 'x-coatcheck-toolbar', 'Only the dev toolbar', 'recording@1', 'dev-toolbar-window'];
  expect(traces.filter((trace) => all.includes(trace))).toEqual([]);
  await using site = await startSite(built);
  const visitor = await filledVisitor(site.url);
  expect((await ask(visitor, { action: 'show' })).status).toBe(404);
});

describe('in Chromium, the app', () => {
  let browser: Browser;
  let site: DevSite;
  beforeAll(async () => {
    [browser, site] = await Promise.all([startChromium(), devSite(siteWith(7))]);
    // The keys of the first request are not recorded.
    await createVisitor(site.url).fetch('/shop');
  });
  afterAll(() => Promise.all([browser?.close(), site?.[Symbol.asyncDispose]()]));

  /** A page of a new visitor, with the app open. */
  async function openApp({ scheme = 'dark', width = 900, fill = 'fill' }: AppOptions = {}): Promise<Page> {
    const context = await browser.newContext({ colorScheme: scheme, viewport: { width, height: 760 } });
    const page = await context.newPage();
    await page.goto(`${site.url}/shop?${fill}`);
    await page.goto(`${site.url}/shop`);
    await page.locator('button[data-app-id="coatcheck"]').click();
    await page.getByRole('button', { name: 'Show the value of user' }).waitFor();
    return page;
  }

  const press = async (page: Page, name: string): Promise<void> => {
    await page.getByRole('button', { name, exact: true }).focus();
    await page.keyboard.press('Enter');
  };

  /** The text or the name of what has the focus in the app. */
  const focused = (page: Page): Promise<unknown> =>
    page.locator('.body').evaluate((it) => {
      const element = (it as unknown as Focusing).getRootNode().activeElement;
      return element && (element.ariaLabel ?? element.textContent);
    });

  test('shows keys, and a value when asked', async () => {
    const page = await openApp();
    const values = page.getByRole('table', { name: 'Values' });
    await expect.poll(() => values.getByRole('row').count()).toBe(4);
    expect(await values.textContent()).not.toContain('Ada');
    await press(page, 'Show the value of user');
    const value = values.getByText('"name": "Ada Lovelace"');
    await expect.poll(() => value.isVisible()).toBe(true);
    expect(await focused(page)).toBe('Hide the value of user');
    await page.keyboard.press('Enter');
    await expect.poll(() => value.isVisible()).toBe(false);
    expect(await focused(page)).toBe('Show the value of user');
    expect(await page.getByRole('table', { name: 'Last requests' }).textContent()).toMatch(
      /\/shop.*reads user.*read \d+\.\d ms.*\/shop.*writes user, cart, notice/,
    );
    await page.context().close();
  });

  test('deletes a key, regenerates, lets expire and destroys, by keyboard', async () => {
    const page = await openApp();
    const values = page.getByRole('table', { name: 'Values' });
    const status = page.getByRole('status');
    const id = async (): Promise<string | undefined> =>
      (await page.context().cookies()).find(({ name }) => name === 'astro-session')?.value;
    await press(page, 'Delete notice');
    await expect.poll(() => status.textContent()).toBe('notice is deleted.');
    expect(await focused(page)).toBe('notice is deleted.');
    expect(await values.getByRole('row').count()).toBe(3);

    const first = await id();
    await press(page, 'Regenerate');
    await expect.poll(() => status.textContent()).toBe('The session has a new id.');
    const second = await id();
    expect(second).not.toBe(first);
    expect(await values.getByRole('row').count()).toBe(3);
    expect(await page.getByRole('table', { name: 'Last requests' }).textContent()).toContain('/shop');

    await press(page, 'Expire now');
    await expect.poll(() => status.textContent()).toBe('The session has expired.');
    expect(await focused(page)).toBe('The session has expired.');
    expect(await values.count()).toBe(0);
    expect(await id()).toBe(second);

    await page.reload();
    expect(await page.textContent('#user')).toBe('nobody');
    await page.context().close();

    const other = await openApp();
    await press(other, 'Destroy');
    await expect.poll(() => other.getByRole('status').textContent()).toBe('The session is destroyed.');
    expect(await focused(other)).toBe('The session is destroyed.');
    expect(await other.context().cookies()).toEqual([]);
    expect(await other.getByText('This browser has no session.').isVisible()).toBe(true);
    await other.context().close();
  });

  test.each(['Show the value of user', 'Delete user', 'Regenerate'])(
    'shows no session anymore if it was destroyed elsewhere: %s',
    async (name) => {
      const page = await openApp();
      const [cookie] = await page.context().cookies();
      await ask(createVisitor(site.url, [['astro-session', cookie!.value]]), { action: 'destroy' });
      await press(page, name);
      await expect.poll(() => page.getByRole('status').textContent()).toBe('There is no session anymore.');
      expect(await focused(page)).toBe('There is no session anymore.');
      expect(await page.getByText('The session of this cookie does not exist').isVisible()).toBe(true);
      expect(await page.getByRole('button', { name: 'Delete user' }).count()).toBe(0);
      await page.context().close();
    },
  );

  test.each([900, 400])('at a width of %i, shows whole words, short rows and all buttons', async (width) => {
    const page = await openApp({ width, fill: 'fill&long' });
    await page.getByRole('button', { name: 'Show the value of longValue' }).click();
    const app = page.locator('.body');
    // Beside the longest value, a key is one line high, and a very long key at most three.
    const heightOf = async (key: string): Promise<number> =>
      (await app.getByTitle(key, { exact: true }).boundingBox())!.height;
    const line = await heightOf('user');
    expect(await heightOf('shoppingCartOfTheVisitor')).toBe(line);
    expect(await heightOf('k'.repeat(198))).toBeLessThanOrEqual(3 * line);
    // Nothing is beyond the edge.
    const beyond = await app.evaluate((it) => {
      const { scrollWidth, clientWidth } = it as unknown as { scrollWidth: number; clientWidth: number };
      return scrollWidth - clientWidth;
    });
    expect(beyond).toBe(0);
    for (const button of await app.getByRole('button', { name: 'Delete' }).all()) {
      const { x, width: own } = (await button.boundingBox())!;
      expect([x >= 0, x + own <= width]).toEqual([true, true]);
    }
    await page.context().close();
  });

  test.each(['light', 'dark'] as const)('follows the %s color scheme', async (scheme) => {
    const page = await openApp({ scheme });
    const window = page.locator('astro-dev-toolbar-window').filter({ hasText: 'Last requests' });
    const color = await window.evaluate(
      (it) => (globalThis as unknown as Browsing).getComputedStyle(it).backgroundColor,
    );
    expect(color).toBe(scheme === 'light' ? 'rgb(255, 255, 255)' : 'rgb(19, 21, 26)');
    // The pictures in the README of the package.
    const path = process.env['COATCHECK_SCREENSHOTS'];
    if (path) await page.getByRole('button', { name: 'Show the value of user' }).click();
    if (path) await window.getByText('Lovelace').waitFor();
    if (path) await window.screenshot({ path: join(path, `toolbar-${scheme}.png`) });
    await page.context().close();
  });
});
