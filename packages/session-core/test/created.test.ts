import { createSessions, describeSession, type Session, type SharedOptions } from '@coatcheck/session-core';
import { parse } from 'devalue';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { astros, createBrowser as createAstroBrowser } from './support/astro-site.ts';
import { createBackend, createBrowser, type Backend } from './support/backend.ts';
import { plainDriver } from './support/plain-driver.ts';

const NOW = Date.parse('2030-01-01T00:00:00Z');
const MINUTE = 60_000;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date', 'performance'], now: NOW });
});
afterEach(() => {
  vi.useRealTimers();
});

const pass = (ms: number): unknown => vi.advanceTimersByTime(ms);

/** Whatever a browser does with its session. */
interface Visitor {
  readonly id: string;
  visit(work: (session: AnySession) => unknown): Promise<unknown>;
}

interface AnySession {
  get(key: string): Promise<unknown>;
  keys(): Promise<Iterable<string>>;
  set(key: string, value: unknown, options?: { ttl?: number }): void;
  delete(key: string): void;
  regenerate(): Promise<void>;
  destroy(): void;
}

const faces: [name: string, open: (backend: Backend) => Visitor][] = [
  ['Session', (backend) => createBrowser(createSessions({ driver: backend.driver })) as Visitor],
  ...astros.map((astro): [string, (backend: Backend) => Visitor] => [
    `Astro.session of ${astro.version}`,
    (backend) => {
      const browser = createAstroBrowser(astro, backend.driver);
      return {
        get id() {
          return browser.cookie!;
        },
        visit: (work) => browser.visit(work),
      };
    },
  ]),
];

const kinds: [string, SharedOptions][] = [
  ['plain', {}],
  ['encrypted', { secrets: ['a secret of at least thirty-two characters'] }],
];

describe.each(faces)('the creation of a session, with %s', (_name, openBrowser) => {
  async function start(options: SharedOptions = {}) {
    const backend = createBackend(options);
    const browser = openBrowser(backend);
    await browser.visit((session) => session.set('user', 'ada'));
    const createdOf = async (id = browser.id): Promise<unknown> =>
      (await describeSession(backend.driver, id))?.created?.getTime() ?? null;
    return { backend, browser, createdOf };
  }

  it.each(kinds)('stays the same while it is used, and under a new id: %s', async (_kind, options) => {
    const { browser, createdOf } = await start(options);
    pass(MINUTE);
    await browser.visit((session) => session.set('cart', ['hat']));
    await browser.visit((session) => session.delete('user'));
    await browser.visit((session) => session.delete('cart'));
    await browser.visit((session) => session.set('cart', ['scarf']));
    expect(await createdOf()).toBe(NOW);
    const before = browser.id;
    await browser.visit((session) => session.regenerate());
    expect(browser.id).not.toBe(before);
    expect(await createdOf()).toBe(NOW);
    expect(await browser.visit((session) => session.get('cart'))).toEqual(['scarf']);
  });

  it('is that of the next session after a sign-out', async () => {
    const { browser, createdOf } = await start();
    await browser.visit((session) => session.destroy());
    pass(MINUTE);
    await browser.visit((session) => session.set('user', 'grace'));
    expect(await createdOf()).toBe(NOW + MINUTE);
  });

  it('does not keep a session that would have expired', async () => {
    const { browser, createdOf } = await start();
    await browser.visit((session) => {
      session.set('flash', 'hello', { ttl: 60 });
      session.delete('user');
    });
    const { id } = browser;
    pass(MINUTE - 1);
    expect(await createdOf(id)).toBe(NOW);
    pass(2);
    expect(await createdOf(id)).toBeNull();
  });

  it.each(kinds)('is no value of the session: %s', async (_kind, options) => {
    const { browser } = await start(options);
    const keys = await browser.visit(async (session) => [...(await session.keys())]);
    expect(keys).toEqual(['user']);
  });

  it.each(kinds)('does not keep an empty session forever: %s', async (_kind, options) => {
    const { backend, browser } = await start({ ...options, ttl: false });
    await browser.visit(async (session) => {
      await session.get('user');
      session.delete('user');
    });
    expect(backend.lifetimes).toEqual(['never', 30 * 24 * 60 * MINUTE]);
  });

  it('costs no operation of its own', async () => {
    const { backend, browser } = await start();
    backend.calls = [];
    await browser.visit((session) => session.set('cart', 1));
    expect(backend.calls.filter((call) => call === 'patch')).toHaveLength(1);
  });
});

it('is kept when the secret changes', async () => {
  const secrets = ['the first secret of at least 32 characters', 'the second secret of at least 32 characters'];
  const backend = createBackend({ secrets: [secrets[0]!] });
  const browser = createBrowser(createSessions({ driver: backend.driver }));
  await browser.visit((session) => session.set('user', 'ada'));
  pass(MINUTE);
  for (const ring of [[secrets[1]!, secrets[0]!], [secrets[1]!]]) {
    expect((await describeSession(backend.again({ secrets: ring }), browser.id))!.created).toEqual(new Date(NOW));
  }
});

it.each(faces)(
  'is kept by `Session` when the backend lost the session, and unknown with Astro: %s',
  async (name, openBrowser) => {
    const backend = createBackend();
    const browser = openBrowser(backend);
    await browser.visit((session) => session.set('user', 'ada'));
    pass(MINUTE);
    await browser.visit(async (session) => {
      await session.get('user');
      backend.evict();
      session.set('cart', 1);
    });
    const expected = name === 'Session' ? new Date(NOW) : null;
    expect(await describeSession(backend.driver, browser.id)).toMatchObject({ created: expected });
  },
);

it('is kept if the request that creates the session also gives it a new id, or restores it', async () => {
  const backend = createBackend();
  for (const between of [(session: Session) => session.regenerate(), () => backend.evict()]) {
    vi.setSystemTime(NOW);
    const browser = createBrowser(createSessions({ driver: backend.driver }));
    await browser.visit(async (session) => {
      await session.update('visits', () => 1);
      pass(1000);
      await between(session);
      session.set('user', 'ada');
    });
    expect((await describeSession(backend.driver, browser.id))!.created).toEqual(new Date(NOW));
    expect(Object.fromEntries(await browser.open().entries())).toEqual({ visits: 1, user: 'ada' });
  }
});

it('is kept when the prefix changes', async () => {
  const until = '2031-01-01';
  const backend = createBackend({ prefix: 'old:' });
  const browser = createBrowser(createSessions({ driver: backend.driver }));
  await browser.visit((session) => session.set('user', 'ada'));
  pass(MINUTE);
  const migrated = backend.again({ prefix: 'new:', migrateFrom: { until, prefix: 'old:' } });
  // The first read migrates the session.
  for (let read = 1; read <= 2; read++)
    expect((await describeSession(migrated, browser.id))!.created).toEqual(new Date(NOW));
});

it.each(['', '-:', '-:soon', ':1', '-:1.5', '-:99999999999999999'])(
  'is unknown if it is corrupt: %j',
  async (field) => {
    const backend = createBackend();
    const id = crypto.randomUUID();
    await backend.poke(id, { user: ':["ada"]', '""': field });
    expect((await describeSession(backend.driver, id))!.created).toBeNull();
  },
);

it('does not get into the data of a plain driver', async () => {
  const stored = new Map<string, unknown>();
  const driver = { ...plainDriver(), setItem: async (id: string, value: unknown) => void stored.set(id, value) };
  const browser = createBrowser(createSessions({ driver }));
  await browser.visit((session) => session.set('user', 'ada'));
  expect([...stored.values()].map((payload) => [...(parse(String(payload)) as Map<string, unknown>).keys()])).toEqual([
    ['user'],
  ]);
});
