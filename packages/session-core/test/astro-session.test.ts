import { channel } from 'node:diagnostics_channel';
import { stringify, unflatten } from 'devalue';
import type { ReportedEvent } from '@coatcheck/session-core';
import memory from '@coatcheck/session-memory/runtime';
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import {
  astros,
  createBrowser,
  createCookies,
  newRequest,
  type Page,
  type RequestOptions,
} from './support/astro-site.ts';
import { createBackend } from './support/backend.ts';

const NOON = Date.UTC(2030, 0, 1, 12);

function stopClock(): void {
  vi.useFakeTimers({ toFake: ['Date', 'performance'], now: NOON });
}

/** Moves all clocks to this many milliseconds after noon. */
function passUntil(ms: number): void {
  vi.advanceTimersByTime(NOON + ms - Date.now());
}

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

/** Collects the events that are reported from now on. */
function listenFor(...events: ReportedEvent[]): string[] {
  const reported: string[] = [];
  for (const event of events) {
    const listener = (): void => void reported.push(event);
    channel(`coatcheck:${event}`).subscribe(listener);
    onTestFinished(() => {
      channel(`coatcheck:${event}`).unsubscribe(listener);
    });
  }
  return reported;
}

/** Lets all pages read the session, and then lets all regenerate it. */
async function readAndRegenerate(pages: Page[]): Promise<void> {
  for (const page of pages) await page.run((session) => session.get('user'));
  for (const page of pages) await page.run((session) => session.regenerate());
}

describe.each(astros)('Astro.session of $version', (astro) => {
  /** Starts a site, and a browser with a session that contains these values. */
  async function startSession(values: Record<string, unknown>, options?: RequestOptions) {
    const backend = createBackend();
    const browser = createBrowser(astro, backend.driver, options);
    await browser.visit((session) => {
      for (const [key, value] of Object.entries(values)) session.set(key, value);
    });
    backend.calls = [];
    return { backend, browser, look };

    /** Reads the session of this cookie. */
    async function look(cookie: string | undefined = browser.cookie): Promise<Record<string, unknown>> {
      const other = createBrowser(astro, backend.driver, options, cookie);
      return Object.fromEntries(await other.visit((session) => session.entries()));
    }
  }

  describe('with concurrent requests of one session', () => {
    it('a flash message is gone once a request has taken it, even if others have read it', async () => {
      const { browser, look } = await startSession({ flash: 'Saved.', user: 'ada' });
      const [taker, other, late] = [browser.open(), browser.open(), browser.open()];
      expect(await other.run((session) => session.get('flash'))).toBe('Saved.');
      expect(await taker.run((session) => session.get('flash'))).toBe('Saved.');
      await late.run((session) => session.get('user'));
      taker.run((session) => session.delete('flash'));
      other.run((session) => session.set('seen', 1));
      await taker.end();
      await other.end();
      late.run((session) => session.set('user', 'grace'));
      await late.end();
      expect(await look()).toEqual({ user: 'grace', seen: 1 });
    });

    it('a flash message is gone once a request has taken it, even if that request changes every key', async () => {
      const { browser, look } = await startSession({ flash: 'Saved.', views: 1 });
      const [taker, other] = [browser.open(), browser.open()];
      await taker.run((session) => session.get('flash'));
      other.run((session) => session.set('basket', 1));
      await other.end();
      taker.run((session) => session.delete('flash'));
      taker.run((session) => session.set('views', 2));
      await taker.end();
      expect(await look()).toEqual({ views: 2, basket: 1 });
    });

    it('components that read concurrently see the same session, and a key that one of them deletes is gone', async () => {
      const { backend, browser, look } = await startSession({ user: 'ada' });
      const page = browser.open();
      let answer = (): void => {};
      const isAsked = new Promise<void>((resolve) => {
        backend.before = (operation) => {
          if (operation !== 'read') return undefined;
          resolve();
          return new Promise<void>((done) => (answer = done));
        };
      });
      const first = page.run((session) => session.get('user'));
      await isAsked;
      const second = page.run((session) => session.get('flash'));
      backend.before = () => undefined;
      await createBrowser(astro, backend.driver, {}, browser.cookie).visit((session) => session.set('flash', 'Saved.'));
      const calls = backend.calls.length;
      answer();
      expect([await first, await second]).toEqual(['ada', 'Saved.']);
      expect(backend.calls.length).toBe(calls);
      page.run((session) => session.delete('flash'));
      await page.end();
      expect(await look()).toEqual({ user: 'ada' });
    });

    it('without identity, components that read concurrently read twice, and a key that one of them deletes is gone', async () => {
      const { backend, browser, look } = await startSession({ user: 'ada', old: 1 }, { identified: false });
      const page = browser.open();
      const { promise: asked, resolve: onAsked } = Promise.withResolvers<void>();
      const { promise: answer, resolve: onAnswer } = Promise.withResolvers<void>();
      // The first read reaches the backend first, and is answered last.
      backend.after = async (operation, fields) => {
        if (operation !== 'read') return fields;
        backend.after = (_, its) => its;
        onAsked();
        await answer;
        return fields;
      };
      const first = page.run((session) => session.get('user'));
      await asked;
      await createBrowser(astro, backend.driver, {}, browser.cookie).visit((session) => {
        session.set('flash', 'Saved.');
        session.set('cart', ['hat']);
        session.delete('old');
      });
      expect(await page.run((session) => session.get('flash'))).toBe('Saved.');
      onAnswer();
      expect(await first).toBe('ada');
      // The session now has marks of both reads.
      expect(new Set(await page.run((session) => session.keys()))).toEqual(new Set(['user', 'flash', 'cart', 'old']));
      page.run((session) => session.delete('flash'));
      await page.end();
      expect(await look()).toEqual({ user: 'ada', cart: ['hat'] });
    });

    it('a value that was changed in place is saved together with one that was set', async () => {
      const { browser, look } = await startSession({ cart: { hat: 1 }, user: 'ada', list: [1] });
      const [page, other] = [browser.open(), browser.open()];
      ((await page.run((session) => session.get('cart'))) as Record<string, number>)['hat'] = 2;
      page.run((session) => session.set('seen', true));
      ((await other.run((session) => session.get('list'))) as number[]).push(2);
      other.run((session) => session.set('user', 'grace'));
      await page.end();
      await other.end();
      expect(await look()).toEqual({ cart: { hat: 2 }, user: 'grace', list: [1, 2], seen: true });
    });

    it('an in-place change alone is not saved, as on any driver of Astro', async () => {
      const { backend, browser, look } = await startSession({ cart: { hat: 1 } });
      await browser.visit(async (session) => Object.assign((await session.get('cart')) as object, { hat: 2 }));
      expect(backend.calls).toEqual(['read']);
      expect(await look()).toEqual({ cart: { hat: 1 } });
    });

    it('an expired key is removed, but not when another request has renewed it', async () => {
      stopClock();
      const { backend, browser, look } = await startSession({ user: 'ada' });
      await browser.visit((session) => {
        session.set('renewed', 'old', { ttl: 10 });
        session.set('stale', 'old', { ttl: 10 });
      });
      passUntil(11_000);
      const [page, other] = [browser.open(), browser.open()];
      expect(await page.run((session) => session.get('renewed'))).toBeUndefined();
      other.run((session) => session.set('renewed', 'new', { ttl: 10 }));
      await other.end();
      page.run((session) => session.set('user', 'grace'));
      await page.end();
      expect(await look()).toEqual({ user: 'grace', renewed: 'new' });
      expect([...(await backend.peek(browser.cookie!))!.keys()].sort()).toEqual(['renewed', 'user']);
    });

    it('a key that expires during a request does not overwrite the new value of another request', async () => {
      stopClock();
      const { browser, look } = await startSession({ user: 'ada' });
      await browser.visit((session) => session.set('token', { value: 'old' }, { ttl: 10 }));
      const [page, other] = [browser.open(), browser.open()];
      expect(await page.run((session) => session.get('token'))).toEqual({ value: 'old' });
      passUntil(11_000);
      other.run((session) => session.set('token', { value: 'new' }, { ttl: 10 }));
      await other.end();
      page.run((session) => session.set('user', 'grace'));
      await page.end();
      expect(await look()).toEqual({ user: 'grace', token: { value: 'new' } });
    });
  });

  describe('when the backend loses the record', () => {
    it('a request that read the session recently restores it, with its own changes', async () => {
      const { backend, browser, look } = await startSession({ user: 'ada', cart: ['hat'], flash: 'Saved.' });
      const page = browser.open();
      await page.run((session) => session.get('user'));
      backend.evict();
      page.run((session) => session.set('user', 'grace'));
      page.run((session) => session.delete('flash'));
      await page.end();
      expect(await look()).toEqual({ user: 'grace', cart: ['hat'] });
    });

    it('restoring does not overwrite what another request has stored in the meantime', async () => {
      const { backend, browser, look } = await startSession({ user: 'ada', cart: ['hat'] });
      const [page, other, late] = [browser.open(), browser.open(), browser.open()];
      for (const each of [page, other, late]) await each.run((session) => session.get('user'));
      page.run((session) => session.set('user', 'grace'));
      other.run((session) => session.set('cart', ['hat', 'coat']));
      late.run((session) => session.set('seen', 1));
      backend.evict();
      // Both requests find that the record is missing. The other one restores it first.
      backend.after = async (_operation, answer) => {
        backend.after = (_, its) => its;
        await other.end();
        return answer;
      };
      await page.end();
      await late.end();
      expect(await look()).toEqual({ user: 'grace', cart: ['hat', 'coat'], seen: 1 });
    });

    it('a request that read the session a minute ago does not restore it, because it may have been destroyed', async () => {
      stopClock();
      const reported = listenFor('stale-write');
      const { backend, browser, look } = await startSession({ user: 'ada', cart: ['hat'] });
      const page = browser.open();
      await page.run((session) => session.get('user'));
      backend.evict();
      passUntil(61_000);
      page.run((session) => session.set('user', 'grace'));
      await page.end();
      expect(reported).toEqual(['stale-write']);
      expect(await look()).toEqual({});
    });
  });

  describe('when a session is removed', () => {
    it.each([
      { name: '0 seconds', ms: 0, event: 'destroyed-write' },
      { name: '59.999 seconds', ms: 59_999, event: 'destroyed-write' },
      { name: '60 seconds', ms: 60_000, event: 'stale-write' },
      { name: '66 seconds', ms: 66_000, event: 'stale-write' },
    ])('a concurrent request that saves $name later does not restore the session', async ({ ms, event }) => {
      stopClock();
      const { backend, browser } = await startSession({ user: 'ada', cart: ['hat'] });
      const reported = listenFor('destroyed-write', 'stale-write');
      const id = browser.cookie!;
      const [some, all] = [browser.open(), browser.open()];
      for (const page of [some, all]) await page.run((session) => session.get('user'));
      await browser.visit((session) => session.destroy());
      expect(browser.cookie).toBeUndefined();
      passUntil(ms);
      some.run((session) => session.set('seen', 1));
      await some.end();
      all.run((session) => session.set('user', 'grace'));
      all.run((session) => session.set('cart', []));
      await all.end();
      expect(await backend.peek(id)).toBeNull();
      expect(reported).toEqual([event, event]);
    });

    it('a read that was in flight at the sign-out does not allow a request to restore the session a minute later', async () => {
      stopClock();
      const { backend, browser } = await startSession({ user: 'ada', cart: ['hat'] });
      const id = browser.cookie!;
      const page = browser.open();
      // The read takes four seconds. The session is destroyed in between.
      backend.after = async (_operation, answer) => {
        backend.after = (_, its) => its;
        await createBrowser(astro, backend.driver, {}, id).visit((session) => session.destroy());
        passUntil(4000);
        return answer;
      };
      expect(await page.run((session) => session.get('user'))).toBe('ada');
      passUntil(62_000);
      page.run((session) => session.set('user', 'grace'));
      await page.end();
      expect(await backend.peek(id)).toBeNull();
    });

    it('a value that is set after destroy() starts a new session with nothing from the old one', async () => {
      const { backend, browser, look } = await startSession({ user: 'ada', cart: ['hat'] });
      const id = browser.cookie!;
      await browser.visit(async (session) => {
        await session.get('user');
        session.destroy();
        session.set('flash', 'Bye.');
      });
      expect(browser.cookie).not.toBe(id);
      expect(await look()).toEqual({ flash: 'Bye.' });
      expect(await backend.peek(id)).toBeNull();
    });

    it.each([
      { name: 'before regenerate()', signOutFirst: true },
      { name: 'between regenerate() and saving', signOutFirst: false },
    ])('by a sign-out $name, a request that regenerates it keeps only what it set itself', async ({ signOutFirst }) => {
      const { backend, browser, look } = await startSession({ user: 'ada', cart: ['hat'] });
      const id = browser.cookie!;
      const [page, leaver] = [browser.open(), browser.open()];
      await page.run((session) => session.get('user'));
      const signOut = async (): Promise<void> => {
        leaver.run((session) => session.destroy());
        await leaver.end();
      };
      if (signOutFirst) await signOut();
      await page.run((session) => session.regenerate());
      if (!signOutFirst) await signOut();
      page.run((session) => session.set('seen', 1));
      await page.end();
      expect(browser.cookie).not.toBe(id);
      expect(await look()).toEqual({ seen: 1 });
      expect(await backend.peek(id)).toBeNull();
    });

    it('a request with an old read does not restore the session when the clock is set back', async () => {
      stopClock();
      const { backend, browser } = await startSession({ user: 'ada', cart: ['hat'] });
      const id = browser.cookie!;
      const page = browser.open();
      await page.run((session) => session.get('user'));
      await browser.visit((session) => session.destroy());
      passUntil(61_000);
      vi.setSystemTime(NOON + 1000);
      page.run((session) => session.set('seen', 1));
      await page.end();
      expect(await backend.peek(id)).toBeNull();
    });

    it('without identity, writes of other sessions do not wait for the removal', async () => {
      // If a write waited, this test would time out before the operation does.
      const backend = createBackend({ timeout: 600_000 });
      const [leaver, other] = [1, 2].map(() => createBrowser(astro, backend.driver, { identified: false }));
      for (const browser of [leaver!, other!]) await browser.visit((session) => session.set('user', 'ada'));
      const { promise: answer, resolve: onAnswer } = Promise.withResolvers<void>();
      backend.before = (operation) => (operation === 'destroy' ? answer : undefined);
      const leaving = leaver!.visit((session) => session.destroy());
      await other!.visit((session) => session.set('user', 'grace'));
      onAnswer();
      await leaving;
      expect(await other!.visit((session) => session.get('user'))).toBe('grace');
    });

    it('and the removal in regenerate() fails, it is repeated before anything is stored under the new id', async () => {
      vi.spyOn(console, 'error').mockImplementation(() => undefined);
      const { backend, browser, look } = await startSession({ user: 'ada', cart: ['hat'] });
      const id = browser.cookie!;
      let hiccups = 1;
      backend.before = (operation) => {
        if (operation === 'destroy' && hiccups-- > 0) throw new Error('The backend has a hiccup.');
      };
      await browser.visit((session) => session.regenerate());
      expect(browser.cookie).not.toBe(id);
      expect(await look()).toEqual({ user: 'ada', cart: ['hat'] });
      expect(await backend.peek(id)).toBeNull();
    });

    it('and regenerate() cannot remove the old id, the request fails and stores nothing under the new id', async () => {
      vi.spyOn(console, 'error').mockImplementation(() => undefined);
      const { backend, browser } = await startSession({ user: 'ada' });
      const id = browser.cookie!;
      backend.before = (operation) => {
        if (operation === 'destroy') throw new Error('The backend has a hiccup.');
      };
      await expect(browser.visit((session) => session.regenerate())).rejects.toMatchObject({ code: 'refused' });
      expect(await backend.peek(id)).not.toBeNull();
      if (browser.cookie !== id) expect(await backend.peek(browser.cookie!)).toBeNull();
    });

    it('and a second removal in regenerate() fails, the session stays destroyed', async () => {
      vi.spyOn(console, 'error').mockImplementation(() => undefined);
      const { backend, browser, look } = await startSession({ user: 'ada', cart: ['hat'] });
      const page = browser.open();
      await page.run((session) => session.get('user'));
      const leaver = createBrowser(astro, backend.driver, {}, browser.cookie);
      await leaver.visit((session) => session.destroy());
      backend.before = (operation) => {
        if (operation === 'destroy') throw new Error('The backend has a hiccup.');
      };
      await page.run((session) => session.regenerate());
      page.run((session) => session.set('seen', 1));
      await page.end();
      expect(await look()).toEqual({ seen: 1 });
    });
  });

  describe.each([
    { name: 'with identity', identified: true },
    { name: 'without identity', identified: false },
  ])('regenerate() in requests $name', (options) => {
    it('keeps what other requests store before the old id is removed, and nothing that was deleted', async () => {
      const { backend, browser, look } = await startSession(
        { user: null, cart: ['hat'], flash: 'Hi.', '~': 1 },
        options,
      );
      const id = browser.cookie!;
      const [page, other, late] = [browser.open(), browser.open(), browser.open()];
      for (const each of [page, other, late]) await each.run((session) => session.get('user'));
      other.run((session) => session.set('cart', ['hat', 'coat']));
      other.run((session) => session.set('added', 1));
      other.run((session) => session.delete('~'));
      await other.end();
      page.run((session) => session.delete('flash'));
      await page.run((session) => session.regenerate());
      page.run((session) => session.set('user', 'ada'));
      await page.end();
      expect(browser.cookie).not.toBe(id);
      expect(await look()).toEqual({ user: 'ada', cart: ['hat', 'coat'], added: 1 });
      late.run((session) => session.set('cart', []));
      await late.end();
      expect(await backend.peek(id)).toBeNull();
    });

    it('keeps what the request set when it sets or deletes every key', async () => {
      const { backend, browser, look } = await startSession({ user: null, cart: ['hat'], flash: 'Hi.' }, options);
      const id = browser.cookie!;
      await browser.visit(async (session) => {
        await session.regenerate();
        session.set('user', 'ada');
        session.set('cart', ['coat']);
        session.delete('flash');
      });
      expect(await look()).toEqual({ user: 'ada', cart: ['coat'] });
      expect(await backend.peek(id)).toBeNull();
    });

    it('twice in one request has the same result as once', async () => {
      const { browser, look } = await startSession({ user: 'ada', cart: ['hat'] }, options);
      await browser.visit(async (session) => {
        await session.regenerate();
        session.set('seen', 1);
        await session.regenerate();
      });
      expect(await look()).toEqual({ user: 'ada', cart: ['hat'], seen: 1 });
    });

    it('keeps a corrupt field', async () => {
      const { backend, browser } = await startSession({ user: 'ada' }, options);
      await backend.poke(browser.cookie!, { corrupt: ':[["Unheard of"]]' });
      await browser.visit((session) => session.regenerate());
      expect(Object.fromEntries((await backend.peek(browser.cookie!))!)).toEqual({
        user: ':["ada"]',
        corrupt: ':[["Unheard of"]]',
      });
    });
  });

  it('a request that saves more than a minute after regenerate() keeps the session, even if another user signs out in the meantime', async () => {
    stopClock();
    const { backend, browser, look } = await startSession({ user: 'ada', cart: ['hat'] });
    const page = browser.open();
    await page.run((session) => session.regenerate());
    passUntil(61_000);
    const stranger = createBrowser(astro, backend.driver);
    await stranger.visit((session) => session.set('user', 'mallory'));
    await stranger.visit((session) => session.destroy());
    page.run((session) => session.set('seen', 1));
    await page.end();
    expect(await look()).toEqual({ user: 'ada', cart: ['hat'], seen: 1 });
  });

  it('a concurrent request that calls regenerate(), destroy() and set() counts as a sign-out', async () => {
    const { backend, browser, look } = await startSession({ user: 'ada', cart: ['hat'] });
    const [one, two] = [browser, createBrowser(astro, backend.driver, {}, browser.cookie)].map((tab) => tab.open());
    await readAndRegenerate([one!, two!]);
    two!.run((session) => session.destroy());
    two!.run((session) => session.set('flash', 'Bye.'));
    one!.run((session) => session.set('seen', 1));
    await Promise.all([one!.end(), two!.end()]);
    expect(await look()).toEqual({ seen: 1 });
  });

  describe.each([
    { name: 'in the order of their calls', order: [0, 1] },
    { name: 'in reverse order', order: [1, 0] },
  ])('two concurrent regenerate(), saved $name', ({ order }) => {
    it('the first one keeps the session, and the other one only what it set itself', async () => {
      const { backend, browser, look } = await startSession({ user: null, cart: ['hat'] });
      const tabs = [browser, createBrowser(astro, backend.driver, {}, browser.cookie)];
      const pages = tabs.map((tab) => tab.open());
      await readAndRegenerate(pages);
      for (const page of pages) page.run((session) => session.set('user', 'ada'));
      await Promise.all(order.map((index) => pages[index]!.end()));
      expect(await look(tabs[0]!.cookie)).toEqual({ user: 'ada', cart: ['hat'] });
      expect(await look(tabs[1]!.cookie)).toEqual({ user: 'ada' });
    });

    it('and a sign-out while the first one waits: neither keeps the session', async () => {
      const { backend, browser, look } = await startSession({ user: null, cart: ['hat'] });
      const tabs = [0, 1, 2].map(() => createBrowser(astro, backend.driver, {}, browser.cookie));
      const [one, two, leaver] = tabs.map((tab) => tab.open());
      await readAndRegenerate([one!, two!]);
      for (const page of [one!, two!]) page.run((session) => session.set('user', 'ada'));
      // The first one now waits until the other one is saved.
      const saving = one!.end();
      leaver!.run((session) => session.destroy());
      await leaver!.end();
      await two!.end();
      await saving;
      expect(await look(tabs[0]!.cookie)).toEqual({ user: 'ada' });
      expect(await look(tabs[1]!.cookie)).toEqual({ user: 'ada' });
    });

    it('and a sign-out before both save: neither keeps the session', async () => {
      const { backend, browser, look } = await startSession({ user: null, cart: ['hat'] });
      const tabs = [0, 1, 2].map(() => createBrowser(astro, backend.driver, {}, browser.cookie));
      const [one, two, leaver] = tabs.map((tab) => tab.open());
      await readAndRegenerate([one!, two!]);
      leaver!.run((session) => session.destroy());
      await leaver!.end();
      for (const page of [one!, two!]) page.run((session) => session.set('user', 'ada'));
      await Promise.all(order.map((index) => [one!, two!][index]!.end()));
      expect(await look(tabs[0]!.cookie)).toEqual({ user: 'ada' });
      expect(await look(tabs[1]!.cookie)).toEqual({ user: 'ada' });
    });
  });

  it('an error page that reads the session while the failed page saves it changes nothing', async () => {
    const { backend, browser, look } = await startSession({ user: 'ada', flash: 'Hi.' });
    const page = browser.open();
    await page.run((session) => session.get('user'));
    page.run((session) => session.delete('flash'));
    page.run((session) => session.set('user', 'grace'));
    const other = createBrowser(astro, backend.driver, {}, browser.cookie);
    await other.visit((session) => session.set('added', 1));
    // Astro opens a second session for the error page, in the same request and with the same cookies.
    const cookies = { get: () => ({ value: browser.cookie! }), set() {}, delete() {}, sent: undefined };
    const errorPage = page.run(() => astro.openSession(backend.driver, cookies));
    const reading = page.run(() => errorPage.get('added'));
    await page.end();
    await reading;
    await page.run(() => astro.persist(errorPage));
    expect(await look()).toEqual({ user: 'grace', added: 1 });
  });

  /** Starts a request whose page reads and deletes `flash`, and whose session was saved. Then Astro opens a session for the error page. */
  async function startErrorPage() {
    const started = await startSession({ user: 'ada', flash: 'one' });
    const request = newRequest();
    const open = () =>
      request.run(() => astro.openSession(started.backend.driver, createCookies(started.browser.cookie)));
    const page = open();
    await request.run(() => page.get('flash'));
    request.run(() => page.delete('flash'));
    await request.run(() => astro.persist(page));
    return { ...started, request, errorPage: open() };
  }

  it('an error page erases nothing that another request has set since the page was saved', async () => {
    const { backend, browser, look, request, errorPage } = await startErrorPage();
    expect(await request.run(() => errorPage.get('flash'))).toBeUndefined();
    await createBrowser(astro, backend.driver, {}, browser.cookie).visit((session) => session.set('flash', 'two'));
    request.run(() => errorPage.set('lastPath', '/gone'));
    await request.run(() => astro.persist(errorPage));
    expect(await look()).toEqual({ user: 'ada', flash: 'two', lastPath: '/gone' });
  });

  it('an error page that replaces every key erases nothing that only the page had read', async () => {
    const { backend, browser, look, request, errorPage } = await startErrorPage();
    await request.run(() => errorPage.get('user'));
    await createBrowser(astro, backend.driver, {}, browser.cookie).visit((session) => session.set('flash', 'two'));
    request.run(() => errorPage.set('user', 'grace'));
    await request.run(() => astro.persist(errorPage));
    expect(await look()).toEqual({ user: 'grace', flash: 'two' });
  });

  it('two sessions that one request opens erase nothing that only one of them has read', async () => {
    const { backend, browser, look } = await startSession({ user: 'ada', cart: ['hat'] });
    const request = newRequest();
    const [first, second] = [1, 2].map(() =>
      request.run(() => astro.openSession(backend.driver, createCookies(browser.cookie))),
    );
    await request.run(() => first!.get('user'));
    await createBrowser(astro, backend.driver, {}, browser.cookie).visit((session) => session.set('added', 1));
    await request.run(() => second!.get('user'));
    request.run(() => first!.set('user', 'grace'));
    await request.run(() => astro.persist(first!));
    expect(await look()).toEqual({ user: 'grace', cart: ['hat'], added: 1 });
  });

  it('a request that has found a session and then does not find it again does not bring it back', async () => {
    stopClock();
    const { backend, browser, look } = await startSession({ user: 'ada' });
    const cookie = browser.cookie;
    const request = newRequest();
    const [first, second] = [1, 2].map(() =>
      request.run(() => astro.openSession(backend.driver, createCookies(cookie))),
    );
    await request.run(() => first!.get('user'));
    await createBrowser(astro, backend.driver, {}, cookie).visit((session) => session.destroy());
    expect(await request.run(() => second!.get('user'))).toBeUndefined();
    request.run(() => first!.set('user', 'grace'));
    passUntil(61_000);
    const reported = listenFor('stale-write');
    await request.run(() => astro.persist(first!));
    expect(reported).toEqual(['stale-write']);
    expect(await look(cookie)).toEqual({});
  });

  it.each([
    { name: 'with identity', identified: true },
    { name: 'without identity', identified: false },
  ])('a session that one request copies to another driver is saved completely, $name', async ({ identified }) => {
    const { backend, browser } = await startSession({ user: 'ada', cart: ['hat'] });
    const otherDriver = memory({ maxSessions: 12 });
    const id = browser.cookie!;
    await createBrowser(astro, otherDriver, {}, id).visit((session) => session.set('user', 'old'));
    const reported = listenFor('unknown-read');
    await newRequest({ identified }).run(async () => {
      const session = unflatten((await backend.driver.getItem(id)) as unknown[]) as Map<string, unknown>;
      await otherDriver.setItem(id, stringify(session));
    });
    expect(reported).toEqual(['unknown-read']);
    const copied = await createBrowser(astro, otherDriver, {}, id).visit((session) => session.entries());
    expect(Object.fromEntries(copied)).toEqual({ user: 'ada', cart: ['hat'] });
  });

  it('a request that reads its session very often remembers only the latest reads', async () => {
    const { backend, browser, look } = await startSession({ user: 'ada', cart: ['hat'] });
    const request = newRequest();
    const open = () => request.run(() => astro.openSession(backend.driver, createCookies(browser.cookie)));
    const first = open();
    await request.run(() => first.get('user'));
    let last = first;
    for (let count = 0; count < 100; count++) {
      last = open();
      await request.run(() => last.get('user'));
    }
    const reported = listenFor('unknown-read');
    for (const session of [last, first]) {
      request.run(() => session.set('user', 'grace'));
      await request.run(() => astro.persist(session));
    }
    // The first read is forgotten. Its session is saved as a whole, and that is reported.
    expect(reported).toEqual(['unknown-read']);
    expect(await look()).toEqual({ user: 'grace', cart: ['hat'] });
  });

  it('a session that was copied to another driver and back is saved completely', async () => {
    const { backend, browser, look } = await startSession({ user: 'ada', cart: ['hat'] });
    const id = browser.cookie!;
    const otherDriver = memory({ maxSessions: 10 });
    const reserialize = (payload: unknown): string => stringify(unflatten(payload as unknown[]));
    await otherDriver.setItem(id, reserialize(await backend.driver.getItem(id)));
    await createBrowser(astro, otherDriver, {}, id).visit((session) => session.set('user', 'grace'));
    backend.evict();
    await backend.driver.setItem(id, reserialize(await otherDriver.getItem(id)));
    expect(await look()).toEqual({ user: 'grace', cart: ['hat'] });
    expect(Object.fromEntries((await backend.peek(id))!)).toEqual({ user: ':["grace"]', cart: ':[[1],"hat"]' });
  });

  it('reads in one tick share one operation, and a read after a write of the same request sees the write', async () => {
    stopClock();
    const { backend, browser } = await startSession({ user: 'ada' });
    const id = browser.cookie!;
    const { driver } = backend;
    const read = async (): Promise<unknown> => unflatten((await driver.getItem(id)) as unknown[]);
    const [first, second] = await Promise.all([read(), read(), read()]);
    expect(backend.calls).toEqual(['read']);
    expect(first).toEqual(second);
    expect(first).not.toBe(second);

    await newRequest().run(async () => {
      const before = driver.getItem(id);
      const writing = driver.setItem(id, stringify(new Map([['user', { data: 'grace' }]])));
      await writing;
      const after = unflatten((await driver.getItem(id)) as unknown[]) as Map<string, { data: string }>;
      expect(after.get('user')!.data).toBe('grace');
      await before;
    });
  });

  it('load() of an expired id starts a new session under that id', async () => {
    stopClock();
    const { browser, look } = await startSession({ user: 'ada' }, { identified: false });
    await browser.visit((session) => session.set('user', 'ada', { ttl: 10 }));
    await browser.visit((session) => session.get('user'));
    passUntil(120_000);
    const id = browser.cookie!;
    await browser.visit(async (session) => {
      await session.load(id);
      session.set('user', 'grace');
    });
    expect(await look()).toEqual({ user: 'grace' });
  });

  describe('expiry', () => {
    it('follows the rule of Astro: a value is still there in the very millisecond of its expiry', async () => {
      stopClock();
      const { browser, look } = await startSession({ user: 'ada' });
      await browser.visit((session) => session.set('token', 1, { ttl: 10 }));
      passUntil(10_000);
      expect(await look()).toEqual({ user: 'ada', token: 1 });
      passUntil(10_001);
      expect(await look()).toEqual({ user: 'ada' });
    });

    it('a session expires with its last value', async () => {
      stopClock();
      const { backend, browser, look } = await startSession({});
      await browser.visit((session) => session.set('token', 1, { ttl: 10 }));
      passUntil(9999);
      expect(await look()).toEqual({ token: 1 });
      passUntil(10_001);
      expect(await look()).toEqual({});
      expect(await backend.peek(browser.cookie!)).toBeNull();
    });

    it.each([-1, -Infinity, -1e300])('a value with a ttl of %d expires immediately', async (ttl) => {
      const { browser, look } = await startSession({ user: 'ada', token: 0 });
      await browser.visit((session) => session.set('token', 1, { ttl }));
      expect(await look()).toEqual({ user: 'ada' });
    });

    it.each([Infinity, NaN, 1e300])('a value with a ttl of %d never expires', async (ttl) => {
      stopClock();
      const { browser, look } = await startSession({});
      await browser.visit((session) => session.set('token', 1, { ttl }));
      passUntil(25 * 24 * 3_600_000);
      expect(await look()).toEqual({ token: 1 });
    });
  });

  describe('data that cannot be stored', () => {
    it.each([
      ['a number as a key', 1, 'number'],
      ['null as a key', {}, 'object'],
      ['a boolean as a key', true, 'boolean'],
    ])('%s is rejected, and the stored session does not change', async (_name, key, kind) => {
      const { browser, look } = await startSession({ user: 'ada' });
      const visit = browser.visit((session) => {
        session.set('user', 'grace');
        session.set(key, 'value');
      });
      await expect(visit).rejects.toMatchObject({
        name: 'SessionDriverError',
        code: 'invalid-data',
        message: expect.stringContaining(`Session keys must be non-empty strings; got ${kind}.`),
      });
      expect(await look()).toEqual({ user: 'ada' });
    });

    it('a value of an unknown type is rejected with an error that does not quote it', async () => {
      const { backend, browser, look } = await startSession({ user: 'ada' });
      const payload = '[["Map",1,2],"secret",{"data":3},["Unheard of","secret"]]';
      const writing = backend.driver.setItem(browser.cookie!, payload);
      await expect(writing).rejects.toMatchObject({ name: 'SessionDriverError', code: 'invalid-data' });
      await expect(writing).rejects.not.toThrow(/secret/);
      expect(await look()).toEqual({ user: 'ada' });
    });

    it.each(['', 'null', '{}', '[]', '[1]', '[["Set"]]', '[["Map",1],"a"]', '[["Map",1,2],"a",3]', 'secret'])(
      'the payload %j is rejected because it is not a session',
      async (payload) => {
        const { backend, browser } = await startSession({ user: 'ada' });
        const writing = backend.driver.setItem(browser.cookie!, payload);
        await expect(writing).rejects.toMatchObject({ name: 'SessionDriverError', code: 'invalid-data' });
        await expect(writing).rejects.not.toThrow(/secret/);
      },
    );
  });
});
