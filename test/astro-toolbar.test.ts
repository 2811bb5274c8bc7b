import { readdir, readFile } from 'node:fs/promises';
import * as http from 'node:http';
import * as http2 from 'node:http2';
import * as https from 'node:https';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { KEY, VALID } from './faults/certificates.ts';
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

/** An address of this machine in its network. A machine without a network has another address of its own, on Linux. */
const ADDRESS =
  Object.values(networkInterfaces())
    .flat()
    .find((it) => it?.family === 'IPv4' && !it.internal)?.address ?? '127.0.0.2';

/** A name that leads to this machine, as with DNS rebinding. */
const EVIL = 'evil.example';

let browser: Browser;
beforeAll(async () => {
  browser = await startChromium({ [EVIL]: ADDRESS });
});
afterAll(() => browser?.close());

function siteWith(astro: 6 | 7, { toolbar = 'true', base = '/', cookie = '{}', more = '' } = {}): SiteSpec {
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
      session: { driver: memoryDriver(), ttl: 86_400, cookie: ${cookie} },
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
  url?: string;
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

interface Sent {
  status: number | undefined;
  headers: http.IncomingHttpHeaders;
  body: string;
}

/**
 * Sends a request with any headers, also with those that `fetch` keeps to itself. With HTTPS, by HTTP/2, unless it is told otherwise.
 *
 * @param body makes it a POST.
 */
function send(
  url: string,
  { host = new URL(url).host, ...headers }: Record<string, string>,
  body?: string,
  version = 2,
): Promise<Sent> {
  const method = body === undefined ? 'GET' : 'POST';
  const { protocol, pathname, search } = new URL(url);
  const trusting = { ca: VALID, servername: 'redis.test' };
  return new Promise((resolve, reject) => {
    const read = (stream: NodeJS.ReadableStream, head: Omit<Sent, 'body'>): void => {
      let text = '';
      stream.setEncoding('utf8');
      stream.on('data', (chunk: string) => void (text += chunk));
      stream.on('end', () => resolve({ ...head, body: text }));
    };
    if (protocol === 'https:' && version === 2) {
      const client = http2.connect(url, trusting).on('error', reject);
      const path = pathname + search;
      const stream = client.request({ ':method': method, ':path': path, ':authority': host, ...headers });
      stream.on('response', (head) => read(stream, { status: head[':status'], headers: head }));
      stream.on('error', reject).on('close', () => client.close());
      stream.end(body);
      return;
    }
    const { request } = protocol === 'https:' ? https : http;
    const options = { method, agent: false as const, headers: { host, ...headers }, ...trusting };
    const sent = request(url, options, (answer) =>
      read(answer, { status: answer.statusCode, headers: answer.headers }),
    );
    sent.on('error', reject).end(body);
  });
}

const APP = { 'content-type': 'application/json', 'x-coatcheck-toolbar': '1' };
const NOTHING = { session: null, hasCookie: false, requests: [] };

/** A page of this visitor, with the app open. */
async function openApp({ url = '', scheme = 'dark', width = 900, fill = 'fill' }: AppOptions): Promise<Page> {
  const context = await browser.newContext({
    colorScheme: scheme,
    viewport: { width, height: 760 },
    ignoreHTTPSErrors: true,
  });
  const page = await context.newPage();
  await page.goto(`${url}?${fill}`);
  await page.goto(url);
  await page.locator('button[data-app-id="coatcheck"]').click();
  await page.getByRole('button', { name: 'Show the value of user' }).waitFor();
  return page;
}

async function press(page: Page, name: string): Promise<void> {
  await page.getByRole('button', { name, exact: true }).focus();
  await page.keyboard.press('Enter');
}

/** Runs in a page: tries to destroy a session with and without what needs the permission of the server. */
async function attack(url: string): Promise<string[]> {
  const results: string[] = [];
  for (const init of [
    { mode: 'cors', headers: { 'content-type': 'application/json', 'x-coatcheck-toolbar': '1' } },
    { mode: 'no-cors', headers: { 'content-type': 'text/plain' } },
  ] as const) {
    const body = '{"action":"destroy"}';
    const answer = fetch(url, { ...init, method: 'POST', credentials: 'include', body });
    results.push(await answer.then(({ type, status }) => `${type} ${status}`).catch(() => 'failed'));
  }
  return results;
}

interface Shown {
  session: {
    handle: string;
    created: string | null;
    expires: string | null;
    entries: { key: string; type: string; bytes: number }[];
  } | null;
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

describe.each(astros)('in `astro dev --host` on Astro %i, the endpoint', (astro) => {
  let site: DevSite;
  let earliest: Visitor;
  /** The site, at an address of the network. */
  let network: string;
  beforeAll(async () => {
    site = await devSite(siteWith(astro), { host: true });
    network = site.url.replace('127.0.0.1', ADDRESS);
    earliest = await filledVisitor(site.url);
  });
  afterAll(() => site?.[Symbol.asyncDispose]());

  test('tells what the first request after the start read and wrote', async () => {
    expect((await show(earliest)).requests).toMatchObject([{ reads: ['user'], writes: ['user', 'cart', 'notice'] }]);
  });

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
      created: expect.stringMatching(/Z$/),
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
    const statusFor = async (headers: Record<string, string>): Promise<unknown[]> => {
      const all = { cookie, 'content-type': 'application/json', ...headers };
      const answer = await send(site.url + PATH, all, '{"action":"show"}');
      return [answer.status, answer.headers['cache-control']];
    };
    const [origin, header] = [{ origin: site.url }, { 'x-coatcheck-toolbar': '1' }];
    expect(await statusFor({ ...origin, ...header })).toEqual([200, 'no-store']);
    expect(await statusFor(origin)).toEqual([403, 'no-store']);
    expect(await statusFor(header)).toEqual([403, 'no-store']);
  });

  test.each(['127.0.0.1', ADDRESS])(
    'at %s, tells nothing to another origin, and nothing under another name',
    async (at) => {
      const url = site.url.replace('127.0.0.1', at);
      const { port } = new URL(url);
      const visitor = await filledVisitor(url);
      const cookie = `astro-session=${visitor.sessionId()}`;
      const statusFor = async (headers: Record<string, string>): Promise<unknown> => {
        const { status, body } = await send(url + PATH, { ...APP, cookie, ...headers }, '{"action":"show"}');
        expect(body.includes('handle')).toBe(status === 200);
        return status;
      };
      expect(await statusFor({ origin: url })).toBe(200);
      const elsewhere = at === ADDRESS ? '127.0.0.1' : ADDRESS;
      for (const origin of [`http://${elsewhere}:${port}`, `http://${at}:1`, `http://${EVIL}:${port}`, 'null'])
        expect([origin, await statusFor({ origin })]).toEqual([origin, 403]);
      const name = `${EVIL}:${port}`;
      for (const origin of [url, `http://${name}`]) expect(await statusFor({ host: name, origin })).toBe(403);
      expect(await statusFor({ host: `${elsewhere}:${port}`, origin: url })).toBe(403);
      expect(await statusFor({ origin: url, 'x-forwarded-host': name })).toBe(200);
      expect(await statusFor({ origin: `http://${name}`, 'x-forwarded-host': name })).toBe(403);
    },
  );

  test('at an address of the network, tells only about the session of the cookie', async () => {
    const visitor = await filledVisitor(network);
    const other = createVisitor(network);
    await other.fetch('/race');
    expect(await show(other)).toMatchObject({
      session: { entries: [{ key: 'race' }] },
      requests: [{ path: '/race' }],
    });
    const { session } = await show(visitor);
    for (const id of [undefined, crypto.randomUUID(), session!.handle, `${visitor.sessionId()}x`]) {
      const stranger = createVisitor(network, id === undefined ? [] : [['astro-session', id]]);
      expect(await show(stranger)).toEqual({ ...NOTHING, hasCookie: id !== undefined });
      expect((await ask(stranger, { action: 'reveal', key: 'user' })).status).toBe(409);
    }
    // What somebody else does, happens to their own session.
    for (const action of ['delete', 'regenerate', 'expire', 'destroy'])
      await ask(other.fork(), { action, key: 'user' });
    expect(await show(visitor)).toMatchObject({ session });
  });

  test('refuses what is no question', async () => {
    const visitor = await filledVisitor(site.url);
    for (const question of [{}, { action: 'drop' }, { action: 'delete' }, { action: 'reveal', key: 1 }])
      expect((await ask(visitor, question)).status).toBe(400);
  });

  describe('in Chromium, the app', () => {
    const open = (options: AppOptions = {}): Promise<Page> => openApp({ url: `${site.url}/shop`, ...options });

    /** The text or the name of what has the focus in the app. */
    const focused = (page: Page): Promise<unknown> =>
      page.locator('.body').evaluate((it) => {
        const element = (it as unknown as Focusing).getRootNode().activeElement;
        return element && (element.ariaLabel ?? element.textContent);
      });

    test('shows keys, and a value when asked', async () => {
      const page = await open();
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
      const page = await open();
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

      const other = await open();
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
        const page = await open();
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

    test('works at an address of the network, and pages of other origins get nothing', async () => {
      const page = await open({ url: `${network}/shop` });
      await press(page, 'Delete notice');
      await expect.poll(() => page.getByRole('status').textContent()).toBe('notice is deleted.');

      const { port } = new URL(network);
      const evil = await page.context().newPage();
      // Another server on this machine, to which the browser sends the same cookies; and a name that leads to this machine.
      const [neighbor, rebound] = [`http://${ADDRESS}:8099/`, `http://${EVIL}:${port}/`];
      for (const url of [neighbor, rebound])
        await page.context().route(url, (route) => route.fulfill({ contentType: 'text/html', body: '<p>evil</p>' }));
      for (const url of [neighbor, rebound, `${site.url}/shop`]) {
        await evil.goto(url);
        expect([url, await evil.evaluate(attack, network + PATH)]).toEqual([url, ['failed', 'opaque 0']]);
      }
      await evil.goto(rebound);
      expect(await evil.evaluate(attack, `http://${EVIL}:${port}${PATH}`)).toEqual(['basic 403', 'basic 403']);

      await press(page, 'Refresh');
      await expect.poll(() => page.getByRole('status').textContent()).toBe('');
      expect(await page.getByRole('table', { name: 'Values' }).getByRole('row').count()).toBe(3);
      await page.context().close();
    });

    test.each([900, 400])('at a width of %i, shows whole words, short rows and all buttons', async (width) => {
      const page = await open({ width, fill: 'fill&long' });
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
      const page = await open({ scheme });
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

describe.each(astros)('in `astro dev --host` with HTTPS and a `base` on Astro %i', (astro) => {
  let site: DevSite;
  /** The page, and the endpoint, at an address of the network. */
  let shop: string;
  let endpoint: string;
  beforeAll(async () => {
    const more = `
      trailingSlash: 'always',
      vite: { server: { https: { key: ${JSON.stringify(KEY)}, cert: ${JSON.stringify(VALID)} } } },`;
    const cookie = "{ name: '__Host-sid', secure: true, sameSite: 'none' }";
    site = await devSite(siteWith(astro, { base: '/docs', cookie, more }), { host: true });
    const network = site.url.replace('127.0.0.1', ADDRESS);
    shop = `${network}/docs/shop/`;
    endpoint = `${network}/docs${PATH}`;
  });
  afterAll(() => site?.[Symbol.asyncDispose]());

  test('the app shows the session in Chromium, and its cookie is `Secure`', async () => {
    const page = await openApp({ url: shop });
    const cookies = await page.context().cookies();
    expect(cookies).toMatchObject([{ name: '__Host-sid', secure: true, httpOnly: true, domain: ADDRESS }]);
    await press(page, 'Delete notice');
    await expect.poll(() => page.getByRole('status').textContent()).toBe('notice is deleted.');
    expect(await page.getByRole('table', { name: 'Values' }).getByRole('row').count()).toBe(3);
    await press(page, 'Destroy');
    await expect.poll(() => page.getByRole('status').textContent()).toBe('The session is destroyed.');
    expect(await page.context().cookies()).toEqual([]);
    await page.context().close();
  });

  test.each([1, 2])(
    'the endpoint tells nothing to another origin or without the cookie, by HTTP/%i',
    async (version) => {
      const { headers } = await send(`${shop}?fill`, {}, undefined, version);
      const [line] = headers['set-cookie']!;
      expect(line).toMatch(/; Secure/);
      const cookie = line!.split(';')[0]!;
      const { origin } = new URL(shop);
      const answerTo = async (own: Record<string, string>): Promise<[number | undefined, string]> => {
        const { status, body } = await send(endpoint, { ...APP, ...own }, '{"action":"show"}', version);
        return [status, body];
      };
      expect(await answerTo({ origin, cookie })).toEqual([200, expect.stringContaining('"handle"')]);
      const others = ['https://127.0.0.1:1', `https://${EVIL}`, site.url, origin.replace('https:', 'http:'), 'null'];
      for (const other of others)
        expect([other, await answerTo({ origin: other, cookie })]).toEqual([other, [403, expect.any(String)]]);
      expect(await answerTo({ origin, cookie, 'sec-fetch-site': 'cross-site' })).toEqual([403, expect.any(String)]);
      expect(await answerTo({ origin, cookie, host: EVIL })).toEqual([403, expect.any(String)]);
      // Vite checks no names with HTTPS: browsers refuse the certificate there. And they send a cookie only to the host that has set it.
      expect(JSON.parse((await answerTo({ origin: `https://${EVIL}`, host: EVIL }))[1])).toEqual(NOTHING);
      expect(JSON.parse((await answerTo({ origin }))[1])).toEqual(NOTHING);
      const made = { origin, cookie: `__Host-sid=${crypto.randomUUID()}` };
      expect(JSON.parse((await answerTo(made))[1])).toEqual({ ...NOTHING, hasCookie: true });
    },
  );
});

// One server, whose configuration changes: a restart takes less time than a start.
test("with the toolbar turned off, there is no endpoint; otherwise it says that the backend is down, and that the driver is not Coatcheck's", async () => {
  const env = { REDIS_URL: 'redis://127.0.0.1:1' };
  await using site = await devSite({ ...siteWith(7, { toolbar: 'false' }), env });
  const visitor = await filledVisitor(site.url);
  const answer = async (): Promise<unknown[]> => {
    const { status, headers, body } = await ask(visitor, { action: 'show' });
    return [status, headers.get('location') ?? body];
  };
  // The middleware of the site runs, which knows no such page.
  expect(await answer()).toEqual([302, '/login']);
  await site.edit('astro.config.mjs', (text) =>
    text
      .replace('enabled: false', 'enabled: true')
      .replace('memoryDriver()', 'redisDriver({ timeout: 500 })')
      .replace("{ memoryDriver } from '@coatcheck/session-memory'", "{ redisDriver } from '@coatcheck/session-redis'"),
  );
  await expect.poll(answer).toEqual([502, expect.stringMatching(/^\[session-redis\]/)]);
  await site.edit('astro.config.mjs', (text) =>
    text
      .replace('redisDriver({ timeout: 500 })', 'sessionDrivers.lruCache()')
      .replace('{ defineConfig', '{ defineConfig, sessionDrivers'),
  );
  await expect.poll(answer).toEqual([501, expect.stringMatching(/is not a Coatcheck driver/)]);
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
