import { once } from 'node:events';
import {
  connect,
  constants,
  createServer,
  type ClientHttp2Stream,
  type Http2ServerResponse,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import type { SessionDriver } from '@coatcheck/session-core';
import { describe, expect, it, onTestFinished } from 'vitest';
import { astros, createBrowser, createCookies, type Astro, type AstroSession } from './support/astro-site.ts';
import { createBackend } from './support/backend.ts';

/** What a page does with the session of its request. */
type Work = (session: AstroSession, stream: ServerHttp2Stream) => unknown;

/** Starts a site on one connection. Each page runs a given function on the session of `id`. */
async function startSite(astro: Astro, driver: SessionDriver, id: string) {
  const pages = new Map<string, Work>();
  const saved = new Map<string, Promise<AstroSession>>();
  const server = createServer((request, response: Http2ServerResponse) => {
    const run = async (): Promise<AstroSession> => {
      const session = astro.openSession(driver, createCookies(id));
      await pages.get(request.url)!(session, response.stream);
      await astro.persist(session);
      response.end('ok');
      return session;
    };
    saved.set(request.url, run());
  });
  server.listen(0);
  await once(server, 'listening');
  const client = connect(`http://localhost:${(server.address() as AddressInfo).port}`);
  onTestFinished(() => {
    client.close();
    server.close();
  });
  const ask = (path: string, work: Work): ClientHttp2Stream => {
    pages.set(path, work);
    return client.request({ ':path': path }).resume();
  };
  const fetch = async (path: string, work: Work): Promise<void> => void (await once(ask(path, work), 'end'));
  // The first request has no identity, because it starts before the driver is loaded.
  await fetch('/first', () => undefined);
  return { ask, fetch, saved: (path: string) => saved.get(path)! };
}

async function startSession(astro: Astro, values: Record<string, unknown>) {
  const { driver } = createBackend();
  const browser = createBrowser(astro, driver);
  await browser.visit((session) => {
    for (const [key, value] of Object.entries(values)) session.set(key, value);
  });
  const id = browser.cookie!;
  const look = async (cookie: string | undefined = id): Promise<Record<string, unknown>> =>
    Object.fromEntries(await createBrowser(astro, driver, {}, cookie).visit((session) => session.entries()));
  return { ...(await startSite(astro, driver, id)), look };
}

describe.each(astros)("on Node's HTTP/2 server with Astro $version", (astro) => {
  it('a request that replaces every key has its own identity among the requests on its connection', async () => {
    const { fetch, look } = await startSession(astro, { flash: 'Saved.', views: 1 });
    const { promise: taken, resolve: onTaken } = Promise.withResolvers<void>();
    const { promise: added, resolve: onAdded } = Promise.withResolvers<void>();
    await Promise.all([
      fetch('/taker', async (session) => {
        expect(await session.get('flash')).toBe('Saved.');
        onTaken();
        await added;
        session.delete('flash');
        session.set('views', 2);
      }),
      (async () => {
        await taken;
        await fetch('/other', (session) => session.set('basket', 1));
        // A third request reads the new key.
        await fetch('/reader', (session) => session.get('basket'));
        onAdded();
      })(),
    ]);
    expect(await look()).toEqual({ views: 2, basket: 1 });
  });

  it('a request that regenerates the session and is then reset by the browser does not count as a sign-out', async () => {
    const { ask, saved, look } = await startSession(astro, { user: null, cart: ['hat'] });
    const { promise: read, resolve: onRead } = Promise.withResolvers<void>();
    const { promise: regenerated, resolve: onRegenerated } = Promise.withResolvers<void>();
    const { promise: reset, resolve: onReset } = Promise.withResolvers<void>();
    const { promise: saving, resolve: onSaving } = Promise.withResolvers<void>();
    const canceled = ask('/canceled', async (session, stream) => {
      await session.get('cart');
      onRead();
      await regenerated;
      await session.regenerate();
      canceled.close(constants.NGHTTP2_CANCEL);
      await once(stream, 'close');
      onReset();
      await saving;
      session.set('user', 'ada');
    });
    const completed = ask('/completed', async (session) => {
      await session.get('cart');
      await read;
      await session.regenerate();
      onRegenerated();
      await reset;
      session.set('user', 'ada');
      onSaving();
    });
    await once(completed, 'end');
    expect(await look((await saved('/completed')).sessionID)).toEqual({ user: 'ada', cart: ['hat'] });
    expect(await look((await saved('/canceled')).sessionID)).toEqual({ user: 'ada' });
  });
});
