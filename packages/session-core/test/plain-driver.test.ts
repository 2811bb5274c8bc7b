import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { LRUCache } from 'lru-cache';
import lruCacheDriver from 'unstorage/drivers/lru-cache';
import memoryDriver from 'unstorage/drivers/memory';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { createSessions, type SessionDriver } from '@coatcheck/session-core';
import memory from '@coatcheck/session-memory/runtime';
import { astros, createBrowser as createSiteBrowser } from './support/astro-site.ts';
import { createBrowser } from './support/backend.ts';

const UNKNOWN = '6b5c3f0e-1d2a-4c3b-8a49-0f1e2d3c4b5a';

// As Astro's documentation writes it: https://docs.astro.build/en/reference/session-driver-reference/
function documentedDriver({ max }: { max: number }): SessionDriver {
  const cache = new LRUCache<string, object | string>({ max });
  return {
    setItem: async (key, value) => {
      cache.set(key, value as string);
    },
    getItem: async (key) => cache.get(key),
    removeItem: async (key) => {
      cache.delete(key);
    },
  };
}

function mapDriver(values: Map<string, unknown> = new Map()): SessionDriver {
  return {
    getItem: async (key) => values.get(key) ?? null,
    setItem: async (key, value) => void values.set(key, value),
    removeItem: async (key) => void values.delete(key),
  };
}

/** One of our drivers, wrapped by the site: only the three methods are left. */
function wrappedDriver(): SessionDriver {
  const { getItem, setItem, removeItem } = memory();
  return { getItem, setItem, removeItem };
}

/** A driver that returns parsed payloads, as some do. */
function parsingDriver(): SessionDriver {
  const { getItem, ...others } = mapDriver();
  return {
    ...others,
    getItem: async (key) => JSON.parse(((await getItem(key)) as string | null) ?? 'null') as unknown,
  };
}

const drivers: [name: string, create: () => SessionDriver][] = [
  ["Astro's documented driver", () => documentedDriver({ max: 500 })],
  ['a Map of strings', () => mapDriver()],
  ['a driver that parses', parsingDriver],
  ['a frozen driver', () => Object.freeze(mapDriver())],
  ["unstorage's lru-cache", () => lruCacheDriver({})],
  ["unstorage's memory", () => memoryDriver()],
  ['a wrapped Coatcheck driver', wrappedDriver],
];

describe.each(drivers)('%s', (_name, create) => {
  const start = () => {
    const driver = create();
    const sessions = createSessions({ driver });
    return { driver, sessions, browser: createBrowser(sessions) };
  };

  it('keeps all value types and unusual keys', async () => {
    const { browser } = start();
    const cycle: { self?: unknown } = {};
    cycle.self = cycle;
    const values: [string, unknown][] = [
      ['user', { name: 'ann', since: new Date(5), tags: new Set(['a']) }],
      ['cycle', cycle],
      ['url', new URL('https://shop.example/?a=1')],
      ['big', 2n ** 70n],
      ['nothing', undefined],
      ['__proto__', 1],
      ['"quoted"', 2],
      ['a\ud800', 'b\ud800'],
    ];
    await browser.visit((session) => values.forEach(([key, value]) => session.set(key, value)));
    expect(await browser.open().entries()).toStrictEqual(values);
    await browser.visit((session) => {
      session.delete('__proto__');
      session.set('user', 'bob');
    });
    expect(await browser.open().get('user')).toBe('bob');
    expect(await browser.open().keys()).toEqual(values.map(([key]) => key).filter((key) => key !== '__proto__'));
  });

  it('concurrent requests lose nothing', async () => {
    const { browser, sessions } = start();
    await browser.visit((session) => session.set('count', 0));
    await Promise.all(
      Array.from({ length: 64 }, async (_, index) => {
        const session = sessions.open(browser.cookie);
        await session.update('count', (count) => (count as number) + 1);
        session.set(`key-${index}`, index);
        await session.commit();
      }),
    );
    expect(await browser.open().get('count')).toBe(64);
    expect((await browser.open().keys()).length).toBe(65);
  });

  it('concurrent requests through several `createSessions` lose nothing', async () => {
    const { browser, driver } = start();
    await browser.visit((session) => session.set('count', 0));
    await Promise.all(
      Array.from({ length: 16 }, () =>
        createSessions({ driver })
          .open(browser.cookie)
          .update('count', (count) => (count as number) + 1),
      ),
    );
    expect(await browser.open().get('count')).toBe(16);
  });

  it('an unknown id is replaced', async () => {
    const { driver, sessions } = start();
    const eve = createBrowser(sessions, `astro-session=${UNKNOWN}`);
    await eve.visit((session) => session.set('user', 'eve'));
    expect(eve.id).not.toBe(UNKNOWN);
    expect((await driver.getItem(UNKNOWN)) ?? null).toBeNull();
  });

  it('a destroyed session stays destroyed when a concurrent request saves it', async () => {
    const { driver, browser, sessions } = start();
    await browser.visit((session) => session.set('user', 'ann'));
    const { id } = browser;
    const late = sessions.open(browser.cookie);
    await late.get('user');
    late.set('cart', ['hat']);
    await browser.visit((session) => session.destroy());
    expect(await late.commit()).toBeUndefined();
    expect((await driver.getItem(id)) ?? null).toBeNull();
  });

  it('regenerate keeps the data and destroys the old id', async () => {
    const { driver, browser } = start();
    await browser.visit((session) => session.set('user', 'ann'));
    const { id } = browser;
    await browser.visit((session) => session.regenerate());
    expect(browser.id).not.toBe(id);
    expect(await browser.open().entries()).toEqual([['user', 'ann']]);
    expect((await driver.getItem(id)) ?? null).toBeNull();
  });

  it('expired values are gone, although the driver does not expire them', async () => {
    vi.useFakeTimers({ toFake: ['Date', 'performance'] });
    onTestFinished(() => void vi.useRealTimers());
    const { browser } = start();
    await browser.visit((session) => {
      session.set('short', 1, { ttl: 10 });
      session.set('long', 2);
    });
    vi.advanceTimersByTime(10_001);
    expect(await browser.open().entries()).toEqual([['long', 2]]);
  });

  it.each(astros)('Astro $version reads what a Session wrote, and vice versa', async (astro) => {
    const { driver, browser } = start();
    const when = new Date(1234);
    await browser.visit((session) => {
      session.set('user', { name: 'ann', since: when });
      session.set('url', new URL('https://shop.example/'));
    });

    const site = createSiteBrowser(astro, driver, {}, browser.id);
    await site.visit(async (session) => {
      expect(await session.get('user')).toStrictEqual({ name: 'ann', since: when });
      expect(await session.get('url')).toStrictEqual(new URL('https://shop.example/'));
      session.set('cart', new Map([['hat', 2]]), { ttl: 3600 });
      session.delete('url');
    });
    expect(site.cookie).toBe(browser.id);

    await browser.visit(async (session) => {
      expect(await session.entries()).toStrictEqual([
        ['user', { name: 'ann', since: when }],
        ['cart', new Map([['hat', 2]])],
      ]);
      session.destroy();
    });
    await site.visit(async (session) => expect(await session.get('user')).toBeUndefined());
  });
});

describe('the session id in a cookie', () => {
  const precious = 'feature-flags-in-production';

  it('must be a UUID, so that it cannot name other keys of the backend', async () => {
    const values = new Map<string, unknown>([[precious, '[["Map",1,2],"user",{"data":3,"expires":-1},"admin"]']]);
    const asked: string[] = [];
    const inner = mapDriver(values);
    const driver: SessionDriver = {
      getItem: (key) => (asked.push(key), inner.getItem(key)),
      setItem: (key, value) => (asked.push(key), inner.setItem(key, value)),
      removeItem: (key) => (asked.push(key), inner.removeItem(key)),
    };
    const before = values.get(precious);
    const sessions = createSessions({ driver });
    for (const id of [
      precious,
      UNKNOWN.toUpperCase(),
      UNKNOWN.replace('-4c3b', '-1c3b'),
      UNKNOWN.replaceAll('-', ''),
      `${UNKNOWN}0`,
    ]) {
      const browser = createBrowser(sessions, `astro-session=${id}`);
      expect(browser.open().sessionID).toBeUndefined();
      expect(await browser.open().get('user')).toBeUndefined();
      await browser.visit((session) => session.load(id));
      await browser.visit((session) => session.destroy());
      await browser.visit((session) => session.set('user', 'eve'));
      expect(browser.id).toMatch(/^[\da-f]{8}-/);
      expect(asked).not.toContain(id);
    }
    expect(values.get(precious)).toBe(before);
  });

  it('does not remove data that is not a session, and the user is still signed out', async () => {
    const values = new Map<string, unknown>([[UNKNOWN, 'something precious']]);
    const browser = createBrowser(createSessions({ driver: mapDriver(values) }), `astro-session=${UNKNOWN}`);
    await browser.visit((session) => session.destroy());
    expect(browser.cookie).toBeUndefined();
    expect(values.get(UNKNOWN)).toBe('something precious');
  });
});

describe('the cost of a plain driver', () => {
  async function countCalls() {
    const calls: string[] = [];
    const inner = mapDriver();
    const driver: SessionDriver = {
      getItem: (key) => (calls.push('get'), inner.getItem(key)),
      setItem: (key, value) => (calls.push('set'), inner.setItem(key, value)),
      removeItem: (key) => (calls.push('remove'), inner.removeItem(key)),
    };
    const browser = createBrowser(createSessions({ driver }));
    await browser.visit((session) => session.set('a', 1));
    calls.length = 0;
    return { calls, browser };
  }

  it('is one get for a read, a get and a set for a write, and a get and a remove for a removal', async () => {
    const { calls, browser } = await countCalls();
    await browser.visit((session) => Promise.all([session.get('a'), session.keys()]));
    expect(calls.splice(0)).toEqual(['get']);
    await browser.visit((session) => session.set('b', 1));
    expect(calls.splice(0)).toEqual(['get', 'set']);
    await browser.visit((session) => session.destroy());
    expect(calls.splice(0)).toEqual(['get', 'remove']);
    await createBrowser(createSessions({ driver: mapDriver() })).visit((session) => session.get('a'));
    expect(calls).toEqual([]);
  });
});

describe('a plain driver', () => {
  it('that fails causes an error, never a missing session', async () => {
    const failing = { ...mapDriver(), getItem: () => Promise.reject(new Error('disk on fire')) };
    const session = createSessions({ driver: failing }).open(`astro-session=${UNKNOWN}`);
    await expect(session.get('a')).rejects.toMatchObject({
      name: 'SessionDriverError',
      driver: 'session-core',
      code: 'refused',
      cause: { message: 'disk on fire' },
    });
  });

  it.each([
    ['a string that is not a session', 'not a session hunter2'],
    ['another array', '[["Set",1],"hunter2"]'],
    ['a Buffer', Buffer.from('hunter2')],
    ['an object', { user: 'hunter2' }],
    ['a number', 7],
  ])('that returns %s causes an error that does not quote it, and nothing is overwritten', async (_name, stored) => {
    const values = new Map<string, unknown>([[UNKNOWN, stored]]);
    const sessions = createSessions({ driver: mapDriver(values) });
    const works = [
      (session = sessions.open(`astro-session=${UNKNOWN}`)) => session.get('a'),
      (session = sessions.open(`astro-session=${UNKNOWN}`)) => {
        session.set('a', 1);
        return session.commit();
      },
    ];
    for (const work of works) {
      const error = (await work().then(
        () => undefined,
        (thrown: unknown) => thrown,
      )) as Error;
      expect(error).toMatchObject({ name: 'SessionDriverError', code: 'invalid-data' });
      expect(`${error.message} ${error.stack} ${String(error.cause)} ${JSON.stringify(error)}`).not.toContain(
        'hunter2',
      );
    }
    expect(values.get(UNKNOWN)).toBe(stored);
  });

  it('may have synchronous methods', async () => {
    const values = new Map<string, unknown>();
    const driver = {
      getItem: (key: string) => values.get(key),
      setItem: (key: string, value: unknown) => void values.set(key, value),
      removeItem: (key: string) => void values.delete(key),
    } as unknown as SessionDriver;
    const browser = createBrowser(createSessions({ driver }));
    await browser.visit((session) => session.set('a', 1));
    expect(await browser.open().get('a')).toBe(1);
  });

  it('that wraps another one does not share its store', async () => {
    const driver = mapDriver();
    createSessions({ driver });
    const asked: string[] = [];
    const logging: SessionDriver = { ...driver, getItem: (key) => (asked.push(key), driver.getItem(key)) };
    await createSessions({ driver: logging }).open(`astro-session=${UNKNOWN}`).get('a');
    expect(asked).toEqual([UNKNOWN]);
  });

  it('with a corrupt value keeps the rest of the session', async () => {
    const corrupt: unknown[] = [];
    const listener = (message: unknown) => void corrupt.push(message);
    subscribe('coatcheck:corrupt-field', listener);
    onTestFinished(() => void unsubscribe('coatcheck:corrupt-field', listener));
    const payload = '[["Map",1,2,5,6],"bad",{"data":3,"expires":-1},["Date",4],"x","good",{"data":7,"expires":-1},1]';
    const values = new Map<string, unknown>([[UNKNOWN, payload.replace('["Date",4]', '["URL",4]')]]);
    const session = createSessions({ driver: mapDriver(values) }).open(`astro-session=${UNKNOWN}`);
    expect(await session.get('good')).toBe(1);
    expect(await session.get('bad')).toBeUndefined();
    expect(corrupt).toEqual([{ driver: 'session-core' }]);
  });
});
