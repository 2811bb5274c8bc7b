import { Hono } from 'hono';
import { describe, expect, it } from 'vitest';
import { createSessions, type Session } from '@coatcheck/session-core';
import memory from '@coatcheck/session-memory/runtime';
import { astros, createBrowser as createSiteBrowser } from './support/astro-site.ts';
import { createBackend, createBrowser } from './support/backend.ts';
import { withSession } from './support/frameworks/hono.ts';
import type { VisitorSession } from './support/frameworks/sessions.ts';

/** Sends one request to a Hono API, with the code from the README. Resolves to the session id after the response. */
async function callApi(
  id: string | undefined,
  work: (session: VisitorSession) => unknown,
): Promise<string | undefined> {
  const app = new Hono();
  app.onError((error) => {
    throw error;
  });
  app.get('/', withSession, async (context) => {
    await work(context.get('session'));
    return context.body(null);
  });
  const headers = id === undefined ? {} : { cookie: `theme=dark; astro-session=${id}` };
  const response = await app.request('https://shop.example/', { headers });
  const setCookie = response.headers.get('set-cookie');
  if (setCookie === null) return id;
  return /^astro-session=([^;]+);/.exec(setCookie)?.[1];
}

describe.each(astros)('an Astro $version site and a Hono API with one driver and one cookie', (astro) => {
  // Each side creates its own driver, as two modules of a server would.
  const openSite = (id?: string) => createSiteBrowser(astro, memory(), {}, id);

  it('the API reads and changes the session that the site wrote', async () => {
    const site = openSite();
    await site.visit((session) => {
      session.set('user', 'ann');
      session.set('visits', 1);
    });
    const id = await callApi(site.cookie, async (session) => {
      expect(await session.entries()).toEqual([
        ['user', 'ann'],
        ['visits', 1],
      ]);
      session.delete('user');
      await session.update('visits', (visits = 0) => visits + 1);
    });
    expect(id).toBe(site.cookie);
    await site.visit(async (session) => {
      expect(await session.entries()).toEqual([['visits', 2]]);
    });
  });

  it('the site reads and changes the session that the API wrote', async () => {
    const id = await callApi(undefined, (session) => session.set('visits', 41));
    const site = openSite(id);
    await site.visit(async (session) => {
      expect(await session.get('visits')).toBe(41);
      session.set('visits', 42);
    });
    expect(site.cookie).toBe(id);
    expect(await callApi(id, async (session) => expect(await session.get('visits')).toBe(42))).toBe(id);
  });

  it('after a sign-in at the API, the site accepts the new id, and the old id is invalid', async () => {
    const site = openSite();
    await site.visit((session) => session.set('visits', 1));
    const oldId = site.cookie;
    const newId = await callApi(oldId, async (session) => {
      await session.regenerate();
      session.set('user', 'ann');
    });
    expect(newId).not.toBe(oldId);
    await openSite(newId).visit(async (session) => {
      expect(await session.entries()).toEqual([
        ['visits', 1],
        ['user', 'ann'],
      ]);
    });
    await openSite(oldId).visit(async (session) => expect([...(await session.keys())]).toEqual([]));
  });

  it('after a sign-in at the site, the API accepts the new id, and the old id is invalid', async () => {
    const oldId = await callApi(undefined, (session) => session.set('visits', 1));
    const site = openSite(oldId);
    await site.visit(async (session) => {
      await session.regenerate();
      session.set('user', 'ann');
    });
    expect(site.cookie).not.toBe(oldId);
    await callApi(site.cookie, async (session) => {
      expect(Object.fromEntries(await session.entries())).toEqual({ visits: 1, user: 'ann' });
    });
    await callApi(oldId, async (session) => expect(await session.keys()).toEqual([]));
  });

  it('a sign-out at one side applies to the other, which cannot restore the session', async () => {
    const site = openSite(await callApi(undefined, (session) => session.set('user', 'ann')));
    const id = site.cookie;
    await site.visit(async (session) => {
      await session.get('user');
      session.set('visits', 1);
      expect(await callApi(id, (api) => api.destroy())).toBeUndefined();
    });
    await callApi(id, async (session) => expect(await session.keys()).toEqual([]));

    const second = openSite(await callApi(undefined, (session) => session.set('user', 'bob')));
    const secondId = second.cookie;
    await callApi(secondId, async (session) => {
      await session.get('user');
      session.set('visits', 1);
      await second.visit((astroSession) => astroSession.destroy());
    });
    await callApi(secondId, async (session) => expect(await session.keys()).toEqual([]));
  });

  it('concurrent requests to both lose nothing', async () => {
    const id = await callApi(undefined, (session) => session.set('visits', 0));
    const requests = Array.from({ length: 32 }, (_, index) => [
      openSite(id).visit(async (session) => {
        await session.get('user');
        session.set(`site-${index}`, index);
      }),
      callApi(id, (session) => session.update('visits', (visits = 0) => visits + 1)),
    ]);
    await Promise.all(requests.flat());
    await callApi(id, async (session) => {
      expect(await session.get('visits')).toBe(32);
      expect((await session.keys()).length).toBe(33);
    });
  });

  it('both encode values of all types in the same way, so reading is not a change', async () => {
    const backend = createBackend();
    const values: Record<string, unknown> = {
      date: new Date(7),
      map: new Map([['<a>', { 'ü\u2028': [1n, undefined, -0] }]]),
      url: new URL('https://shop.example/?a=b#c'),
      text: '</script>\ud800',
    };
    const site = createSiteBrowser(astro, backend.driver);
    await site.visit((session) => {
      for (const [key, value] of Object.entries(values)) session.set(key, value);
    });
    backend.calls = [];
    const api = createBrowser(createSessions({ driver: backend.driver }), `astro-session=${site.cookie}`);
    await api.visit(async (session: Session) => {
      for (const key of Object.keys(values)) session.set(key, await session.get(key));
      expect(Object.fromEntries(await session.entries())).toStrictEqual(values);
    });
    expect(backend.calls).toEqual(['read']);
  });
});
