import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { afterEach, describe, expect, expectTypeOf, it, onTestFinished, vi } from 'vitest';
import { createSessions, type Session, type SessionCookie } from '@coatcheck/session-core';
import { createError } from '@coatcheck/session-core/driver';
import memory from '@coatcheck/session-memory/runtime';
import { createBackend, createBrowser } from './support/backend.ts';

const UNKNOWN = 'an-id-that-nobody-ever-made';

/** Sessions over a backend that counts, and a browser that holds a session with these values. */
async function startSession(values: Record<string, unknown> = { visits: 1 }, options: { ttl?: number } = {}) {
  const backend = createBackend();
  const sessions = createSessions({ driver: backend.driver, ...options });
  const browser = createBrowser(sessions);
  await browser.visit((session) => {
    for (const [key, value] of Object.entries(values)) session.set(key, value);
  });
  backend.calls = [];
  return { backend, sessions, browser };
}

function startClock(): void {
  vi.useFakeTimers({ toFake: ['Date', 'performance'] });
}

function pass(ms: number): void {
  vi.advanceTimersByTime(ms);
}

function countDamaged(): { count: number } {
  const seen = { count: 0 };
  const listener = () => void seen.count++;
  subscribe('coatcheck:corrupt-field', listener);
  onTestFinished(() => void unsubscribe('coatcheck:corrupt-field', listener));
  return seen;
}

afterEach(() => void vi.useRealTimers());

describe('what a request costs', () => {
  it('nothing for a visitor without a session who stores nothing', async () => {
    const backend = createBackend();
    const session = createSessions({ driver: backend.driver }).open(undefined);
    expect(await session.get('user')).toBeUndefined();
    expect(await session.has('user')).toBe(false);
    expect(await session.keys()).toEqual([]);
    expect(await session.values()).toEqual([]);
    expect(await session.entries()).toEqual([]);
    session.delete('user');
    await session.update('user', () => undefined);
    await session.regenerate();
    session.destroy();
    expect(await session.commit()).toBeUndefined();
    expect(backend.calls).toEqual([]);
  });

  it('nothing for a request that does not ask, whoever it comes from', async () => {
    const { backend, browser } = await startSession();
    expect(await browser.open().commit()).toBeUndefined();
    expect(backend.calls).toEqual([]);
  });

  it('one read, however much is read', async () => {
    const { backend, browser } = await startSession({ a: 1, b: 2 });
    const session = browser.open();
    const five = await Promise.all([
      session.get('a'),
      session.has('b'),
      session.keys(),
      session.values(),
      session.entries(),
    ]);
    expect(five).toEqual([
      1,
      true,
      ['a', 'b'],
      [1, 2],
      [
        ['a', 1],
        ['b', 2],
      ],
    ]);
    expect(await session.get('b')).toBe(2);
    expect(await session.commit()).toBeUndefined();
    expect(backend.calls).toEqual(['read']);
  });

  it('one read, also for those who ask while it is under way', async () => {
    const { backend, browser } = await startSession({ a: 1, b: 2 });
    const session = browser.open();
    let second: Promise<unknown> | undefined;
    backend.before = () => void (second ??= session.get('b'));
    expect(await session.get('a')).toBe(1);
    expect(await second).toBe(2);
    expect(backend.calls).toEqual(['read']);
  });

  it('one read with an id that nobody knows, and no cookie', async () => {
    const { backend, sessions } = await startSession();
    const session = sessions.open(`astro-session=${UNKNOWN}`);
    const reads = await Promise.all(['a', 'b', 'c', 'd', 'e'].map((key) => session.get(key)));
    expect(reads).toEqual([undefined, undefined, undefined, undefined, undefined]);
    expect(await session.get('f')).toBeUndefined();
    expect(await session.commit()).toBeUndefined();
    expect(backend.calls).toEqual(['read']);
  });

  it('one write for a new visitor, whatever is set', async () => {
    const backend = createBackend();
    const session = createSessions({ driver: backend.driver }).open(null);
    session.set('a', 1);
    session.set('b', 2);
    session.set('a', 3);
    session.delete('b');
    expect(await session.get('a')).toBe(3);
    expect(await session.commit()).toMatch(/^astro-session=/);
    expect(backend.calls).toEqual(['patch']);
  });

  it('one write for a request that only sets and deletes', async () => {
    const { backend, browser } = await startSession({ a: 1, b: 2 });
    expect(
      await browser.visit(async (session) => {
        session.set('c', 3);
        session.delete('a');
        return [await session.get('c'), await session.get('a')];
      }),
    ).toEqual([3, undefined]);
    expect(backend.calls).toEqual(['patch']);
    expect(await browser.open().entries()).toEqual([
      ['b', 2],
      ['c', 3],
    ]);
  });

  it('nothing for a value that did not change, or was not there to be deleted', async () => {
    const { backend, browser } = await startSession({ cart: { hats: 2 } });
    await browser.visit(async (session) => {
      session.set('cart', await session.get('cart'));
      session.delete('coupon');
    });
    expect(backend.calls).toEqual(['read']);
  });

  it('one write that finds nothing for a deletion under an id that nobody knows, and no cookie', async () => {
    const { backend, sessions } = await startSession();
    const session = sessions.open(`astro-session=${UNKNOWN}`);
    session.delete('a');
    expect(await session.commit()).toBeUndefined();
    expect(backend.calls).toEqual(['patch']);
    expect(await backend.peek(UNKNOWN)).toBeNull();
  });

  // Were it quadratic, it would take minutes.
  it('one write for 300,000 deletions, in a time that grows as they do', async () => {
    const backend = createBackend();
    const names = Array.from({ length: 300_000 }, (_, index) => `key-${index}`);
    const browser = createBrowser(createSessions({ driver: backend.driver }));
    await browser.visit((session) => names.forEach((name) => session.set(name, 1)));
    backend.calls = [];
    await browser.visit(async (session) => {
      await session.get('key-0');
      for (const name of names) session.delete(name);
    });
    expect(backend.calls).toEqual(['read', 'patch']);
    expect(await browser.open().keys()).toEqual([]);
  });

  it('one write to sign out, and no read', async () => {
    const { backend, browser } = await startSession();
    await browser.visit((session) => session.destroy());
    expect(backend.calls).toEqual(['destroy']);
  });

  it('a read and a write for an update; only the read when it changes nothing; only the write for a new visitor', async () => {
    const { backend, browser, sessions } = await startSession({ visits: 1 });
    await browser.visit((session) => session.update('visits', (visits) => (visits as number) + 1));
    expect(backend.calls.splice(0)).toEqual(['read', 'patch']);
    await browser.visit((session) => session.update('visits', (visits) => visits));
    expect(backend.calls.splice(0)).toEqual(['read']);
    await createBrowser(sessions).visit((session) => session.update('visits', () => 1));
    expect(backend.calls.splice(0)).toEqual(['patch']);
  });

  it('a value is decoded when it is asked for, and once', async () => {
    const corrupt = countDamaged();
    const { backend, browser } = await startSession({ good: [1] });
    await backend.poke(browser.id, { bad: ':not a value' });
    const session = browser.open();
    const good = await session.get('good');
    expect(good).toEqual([1]);
    expect(await session.get('good')).toBe(good);
    expect(await session.has('bad')).toBe(true);
    expect(corrupt.count).toBe(0);
  });
});

describe('values', () => {
  const cycle: { self?: unknown } = {};
  cycle.self = cycle;
  const shared = { shared: true };
  const cases: Record<string, unknown> = {
    text: 'Ünï \u2028 <script> \ud83d\ude00',
    'lone surrogates': 'a\ud800b',
    nothing: null,
    undefined,
    '-0': -0,
    NaN: Number.NaN,
    Infinity: Number.POSITIVE_INFINITY,
    BigInt: 2n ** 80n,
    Date: new Date(1234),
    Map: new Map<unknown, unknown>([[1, { deep: new Set(['x']) }]]),
    Set: new Set([1, 'two']),
    RegExp: /a+/giu,
    URL: new URL('https://shop.example/?q=hat#top'),
    URLSearchParams: new URLSearchParams('a=1&a=2'),
    bytes: new Uint8Array([0, 255, 128]),
    cycle,
    'one object twice': [shared, shared],
    'a sparse list': [1, , 3], // oxlint-disable-line no-sparse-arrays
    'a null prototype': Object.assign(Object.create(null) as object, { a: 1 }),
  };

  it.each(Object.keys(cases))('%s', async (kind) => {
    const { browser } = await startSession({ value: cases[kind] });
    const value = await browser.open().get('value');
    expect(value).toStrictEqual(cases[kind]);
    expect(await browser.open().has('value')).toBe(true);
    expect(await browser.open().entries()).toStrictEqual([['value', cases[kind]]]);
  });

  it('two places of one object are one object afterwards', async () => {
    const { browser } = await startSession({ twice: [shared, shared] });
    const [one, two] = (await browser.open().get('twice')) as [object, object];
    expect(one).toBe(two);
  });

  it.each(['__proto__', 'constructor', '"quoted"', 'line\nbreak', 'a\ud800', 'a\0', ' ', 'cart:sku', 'ü'])(
    'the key %j is a key like any other',
    async (key) => {
      const { browser } = await startSession({ other: 0 });
      await browser.visit((session) => session.set(key, 1));
      const session = browser.open();
      expect(await session.get(key)).toBe(1);
      expect(await session.keys()).toEqual(['other', key]);
      await browser.visit((again) => again.delete(key));
      expect(await browser.open().keys()).toEqual(['other']);
    },
  );

  it('a key that this request has set or deleted is there or not, whatever is stored', async () => {
    const { browser } = await startSession({ old: 1 });
    const session = browser.open();
    session.delete('old');
    session.set('new', 1);
    expect(await session.has('old')).toBe(false);
    expect(await session.has('new')).toBe(true);
  });

  it('what every object has is not in a session', async () => {
    const { browser } = await startSession();
    expect(await browser.open().get('toString')).toBeUndefined();
    expect(await browser.open().has('__proto__')).toBe(false);
  });

  it('is stored as it was when it was set', async () => {
    const { browser } = await startSession();
    const cart = ['hat'];
    const inSameRequest = await browser.visit(async (session) => {
      session.set('cart', cart);
      cart.push('coat');
      return session.get('cart');
    });
    expect(inSameRequest).toEqual(['hat']);
    expect(await browser.open().get('cart')).toEqual(['hat']);
  });

  it('changed in place saves nothing', async () => {
    const { backend, browser } = await startSession({ cart: ['hat'], other: 1 });
    await browser.visit(async (session) => {
      ((await session.get('cart')) as string[]).push('coat');
      session.set('other', 2);
    });
    expect(backend.calls).toEqual(['read', 'patch']);
    expect(await browser.open().get('cart')).toEqual(['hat']);
  });

  it('belongs to the request that read it', async () => {
    const { browser } = await startSession({ cart: ['hat'] });
    const [one, two] = [browser.open(), browser.open()];
    const [mine, theirs] = await Promise.all([one.get('cart'), two.get('cart')]);
    (mine as string[]).push('coat');
    expect(theirs).toEqual(['hat']);
  });

  it('that cannot be stored is refused at once, by key and place, without a word of the value', async () => {
    const { backend, browser } = await startSession();
    const session = browser.open();
    const value = { lines: [{ price: 1, format: () => 'hunter2' }] };
    let error: unknown;
    try {
      session.set('cart', value);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toMatchObject({ name: 'SessionDriverError', code: 'invalid-data' });
    const { message, cause } = error as Error;
    expect(message).toContain('`cart`');
    expect(message).toContain('.lines[0].format');
    expect(`${message} ${String(cause)} ${JSON.stringify(error)}`).not.toContain('hunter2');
    expect(await session.commit()).toBeUndefined();
    expect(backend.calls).toEqual([]);
  });

  it.each(['', 1, undefined, null, Symbol('key')])('the key %s is refused', async (key) => {
    const { backend, browser } = await startSession();
    const session = browser.open();
    const problem = expect.objectContaining({ code: 'invalid-data', message: expect.stringContaining('keys must be') });
    expect(() => session.set(key as string, 1)).toThrow(problem);
    expect(() => session.delete(key as string)).toThrow(problem);
    await expect(session.update(key as string, () => 1)).rejects.toEqual(problem);
    expect(await session.get(key as string)).toBeUndefined();
    await session.commit();
    expect(backend.calls).not.toContain('patch');
  });
});

describe('a corrupt field', () => {
  it.each([
    ':not a value',
    'no colon',
    '12x:[1]',
    ':[]',
    ':5',
    ':[{"a":7}]',
    ':["Date"',
    ':"text"',
    ':[["URL",1],"%"]',
  ])('%s reads as undefined, is reported, and everything else lives', async (field) => {
    const corrupt = countDamaged();
    const { backend, browser } = await startSession({ good: 1 });
    await backend.poke(browser.id, { bad: field });
    const session = browser.open();
    expect(await session.get('bad')).toBeUndefined();
    expect(corrupt.count).toBe(1);
    expect(await session.get('good')).toBe(1);
    expect(await session.values()).toEqual([1]);
    expect(await session.entries()).toEqual([['good', 1]]);
  });

  it('is never removed by anyone who does not ask for it', async () => {
    const { backend, browser } = await startSession({ good: 1 });
    await backend.poke(browser.id, { bad: ':corrupt' });
    await browser.visit(async (session) => {
      await session.entries();
      session.set('good', 2);
    });
    expect((await backend.peek(browser.id))?.get('bad')).toBe(':corrupt');
    await browser.visit((session) => session.regenerate());
    expect((await backend.peek(browser.id))?.get('bad')).toBe(':corrupt');
  });

  it('gives way to a value that is set or updated', async () => {
    const { backend, browser } = await startSession({ good: 1 });
    await backend.poke(browser.id, { one: ':corrupt', two: ':corrupt' });
    await browser.visit(async (session) => {
      session.set('one', 1);
      await session.update('two', (value) => [value, 2]);
    });
    expect(await browser.open().get('one')).toBe(1);
    expect(await browser.open().get('two')).toEqual([undefined, 2]);
  });
});

describe('ids', () => {
  it('one that the backend does not know is never adopted, whether the request reads or not', async () => {
    const { backend, sessions } = await startSession();
    const works: ((session: Session) => unknown)[] = [
      (session) => session.set('user', 'eve'),
      async (session) => {
        await session.get('user');
        session.set('user', 'eve');
      },
      async (session) => {
        session.set('user', 'eve');
        await session.get('other');
      },
      (session) => session.update('user', () => 'eve'),
      async (session) => {
        await session.regenerate();
        session.set('user', 'eve');
      },
      async (session) => {
        await session.load(UNKNOWN);
        session.set('user', 'eve');
      },
      async (session) => {
        await session.load('short');
        session.set('user', 'eve');
      },
    ];
    for (const work of works) {
      const browser = createBrowser(sessions, `astro-session=${UNKNOWN}`);
      const session = browser.open();
      await work(session);
      await browser.take(session);
      expect(browser.id).toMatch(/^[0-9a-f-]{36}$/);
      expect(session.sessionID).toBe(browser.id);
      expect(await browser.open().get('user')).toBe('eve');
      expect(await backend.peek(UNKNOWN)).toBeNull();
    }
  });

  it('one of the wrong shape is no id at all', async () => {
    const { backend, sessions } = await startSession();
    for (const id of [
      '',
      'short',
      'with space and more',
      '../../../etc/passwd',
      '"quoted-quoted-quoted"',
      'x'.repeat(129),
    ]) {
      const session = sessions.open(`astro-session=${id}`);
      expect(session.sessionID).toBeUndefined();
      expect(await session.get('visits')).toBeUndefined();
      expect(await session.commit()).toBeUndefined();
    }
    expect(backend.calls).toEqual([]);
  });

  it('never reaches the backend as it is', async () => {
    const { backend, browser } = await startSession();
    await browser.visit((session) => session.get('visits'));
    for (const key of backend.keys) expect(key).toMatch(/^session:[\w-]{43}$/);
    expect([...backend.keys].join()).not.toContain(browser.id.slice(0, 8));
  });

  it('is made anew for everyone', async () => {
    const { sessions } = await startSession();
    const browsers = Array.from({ length: 100 }, () => createBrowser(sessions));
    for (const browser of browsers) await browser.visit((session) => session.set('a', 1));
    expect(new Set(browsers.map((browser) => browser.id)).size).toBe(100);
  });

  it('is known as soon as something is set', async () => {
    const { sessions, browser } = await startSession();
    expect(browser.open().sessionID).toBe(browser.id);
    const session = sessions.open('');
    expect(session.sessionID).toBeUndefined();
    session.set('a', 1);
    expect(session.sessionID).toMatch(/^[0-9a-f-]{36}$/);
    expect(await session.commit()).toContain(session.sessionID!);
  });

  it('is known as soon as the one of the cookie is found to be unknown, if something is set', async () => {
    const { sessions } = await startSession();
    const session = sessions.open(`astro-session=${UNKNOWN}`);
    session.set('a', 1);
    await session.get('b');
    const { sessionID } = session;
    expect(sessionID).toMatch(/^[0-9a-f-]{36}$/);
    expect(await session.commit()).toContain(sessionID!);
  });

  it('is a new one after regenerate, also before anything is stored', async () => {
    const { sessions } = await startSession();
    const session = sessions.open(undefined);
    session.set('a', 1);
    const before = session.sessionID;
    await session.regenerate();
    expect(session.sessionID).not.toBe(before);
    expect(await session.commit()).toContain(session.sessionID!);
  });

  it('is not in the JSON of an object that holds the session', async () => {
    const { browser } = await startSession();
    const session = browser.open();
    expect(session.sessionID).toBe(browser.id);
    expect(JSON.stringify({ session })).not.toContain(browser.id);
  });
});

describe('lifetimes', () => {
  it('a value lives as long as set says, the others as long as createSessions says', async () => {
    startClock();
    const { browser } = await startSession({ long: 1 }, { ttl: 100 });
    await browser.visit((session) => session.set('short', 2, { ttl: 10 }));
    pass(10_000);
    expect(await browser.open().get('short')).toBe(2);
    pass(1);
    const session = browser.open();
    expect(await session.get('short')).toBeUndefined();
    expect(await session.has('short')).toBe(false);
    expect(await session.entries()).toEqual([['long', 1]]);
    pass(90_000);
    expect(await browser.open().keys()).toEqual([]);
  });

  it('the record goes with its longest-lived value', async () => {
    startClock();
    const { backend, browser } = await startSession({ a: 1 }, { ttl: 100 });
    await browser.visit((session) => session.set('b', 1, { ttl: 1000 }));
    pass(999_999);
    expect(await backend.peek(browser.id)).not.toBeNull();
    pass(2);
    expect(await backend.peek(browser.id)).toBeNull();
  });

  it('the backend is told how long the values live that a request knows of, and not only of its own', async () => {
    const { backend, browser } = await startSession({ long: 1 }, { ttl: 1000 });
    await browser.visit(async (session) => {
      await session.get('long');
      session.set('short', 1, { ttl: 10 });
    });
    expect(backend.lifetimes.at(-1)).toBeGreaterThan(900_000);
  });

  it('a value without one lives as long as the driver says', async () => {
    startClock();
    const backend = createBackend({ ttl: 60 });
    const browser = createBrowser(createSessions({ driver: backend.driver }));
    await browser.visit((session) => session.set('a', 1));
    pass(59_999);
    expect(await browser.open().get('a')).toBe(1);
    pass(2);
    expect(await backend.peek(browser.id)).toBeNull();
  });

  it('setting the same value again renews it when it has a lifetime', async () => {
    startClock();
    const { browser } = await startSession({ a: 1 }, { ttl: 60 });
    pass(50_000);
    await browser.visit(async (session) => session.set('a', await session.get('a')));
    pass(50_000);
    expect(await browser.open().get('a')).toBe(1);
  });

  it('an update takes the lifetime that it is given', async () => {
    startClock();
    const { browser } = await startSession({ a: 1 });
    await browser.visit((session) => session.update('a', () => 2, { ttl: 10 }));
    pass(10_001);
    expect(await browser.open().get('a')).toBeUndefined();
  });

  it('a value that expires during a request is gone within it', async () => {
    startClock();
    const { browser } = await startSession({ a: 1 }, { ttl: 10 });
    const session = browser.open();
    const held = { a: 1 };
    session.set('mine', held, { ttl: 5 });
    expect(await session.get('a')).toBe(1);
    pass(10_001);
    expect(await session.get('a')).toBeUndefined();
    expect(await session.get('mine')).toBeUndefined();
    expect(await session.entries()).toEqual([]);
  });

  it('a value that lives in the past is not stored', async () => {
    const { browser } = await startSession({ a: 1 });
    await browser.visit((session) => session.set('a', 2, { ttl: -1 }));
    expect(await browser.open().has('a')).toBe(false);
  });

  it.each([Number.NaN, '60' as never, {} as never])('a ttl of %s is refused', async (ttl) => {
    const { browser } = await startSession();
    expect(() => browser.open().set('a', 1, { ttl })).toThrow(
      expect.objectContaining({ code: 'invalid-data', message: expect.stringContaining('`ttl`') }),
    );
    expect(() => createSessions({ driver: memory(), ttl })).toThrow(TypeError);
  });
});

describe('commit', () => {
  it('again gives the same answer and stores nothing', async () => {
    const { backend, sessions } = await startSession();
    const session = sessions.open(undefined);
    session.set('a', 1);
    const [one, two] = await Promise.all([session.commit(), session.commit()]);
    expect(one).toMatch(/^astro-session=/);
    expect(two).toBe(one);
    expect(await session.commit()).toBe(one);
    expect(backend.calls).toEqual(['patch']);
  });

  it('ends the writing: what comes later throws, and stores nothing', async () => {
    const { backend, browser } = await startSession();
    const session = browser.open();
    const committing = session.commit();
    const problem = expect.objectContaining({ code: 'committed', message: expect.stringContaining('after commit') });
    const check = async () => {
      expect(() => session.set('a', 1)).toThrow(problem);
      expect(() => session.delete('visits')).toThrow(problem);
      expect(() => session.destroy()).toThrow(problem);
      await expect(session.update('a', () => 1)).rejects.toEqual(problem);
      await expect(session.regenerate()).rejects.toEqual(problem);
      await expect(session.load(browser.id)).rejects.toEqual(problem);
    };
    await check();
    await committing;
    await check();
    expect(backend.calls).toEqual([]);
    expect(await session.get('visits')).toBe(1);
  });

  it('is too early for what nobody waited for, which is told so', async () => {
    const { browser, sessions } = await startSession();
    for (const session of [browser.open(), sessions.open(undefined)]) {
      const update = session.update('visits', async () => Promise.resolve(2));
      await session.commit();
      await expect(update).rejects.toMatchObject({ code: 'committed' });
    }
    const session = browser.open();
    const regeneration = session.regenerate();
    await session.commit();
    await expect(regeneration).rejects.toMatchObject({ code: 'committed' });
    expect(await browser.open().get('visits')).toBe(1);
  });

  it('leaves what was stored readable', async () => {
    const { browser } = await startSession({ a: 1 });
    const session = browser.open();
    session.set('b', 2);
    await session.commit();
    expect(await session.entries()).toEqual([
      ['a', 1],
      ['b', 2],
    ]);
  });

  it('rejects when the backend fails, and may be tried again', async () => {
    const { backend, browser } = await startSession();
    const session = browser.open();
    session.set('a', 1);
    backend.before = () => Promise.reject(new Error('disk full'));
    await expect(session.commit()).rejects.toMatchObject({ code: 'refused', operation: 'patch' });
    backend.before = () => undefined;
    session.set('b', 2);
    expect(await session.commit()).toBeUndefined();
    expect(await browser.open().keys()).toEqual(['visits', 'a', 'b']);
  });

  it('of a new session that failed may be tried again', async () => {
    const { backend, sessions } = await startSession();
    const browser = createBrowser(sessions);
    const session = browser.open();
    session.set('a', 1);
    backend.before = () => Promise.reject(new Error('disk full'));
    await expect(session.commit()).rejects.toMatchObject({ code: 'refused' });
    backend.before = () => undefined;
    await browser.take(session);
    expect(await browser.open().get('a')).toBe(1);
  });

  it('that stored a new session without an answer, and deletes something then, has deleted it', async () => {
    const { backend, sessions } = await startSession();
    const browser = createBrowser(sessions);
    const session = browser.open();
    session.set('a', 1);
    session.set('b', 2);
    backend.after = () => Promise.reject(createError('session-test', 'interrupted', 'The connection broke.'));
    await expect(session.commit()).rejects.toMatchObject({ code: 'interrupted' });
    backend.after = (_operation, answer) => answer;
    session.delete('a');
    await browser.take(session);
    expect(await browser.open().entries()).toEqual([['b', 2]]);
  });

  it('that stored a new session without an answer leaves no second one, and none when it is given up', async () => {
    const { backend, sessions } = await startSession();
    for (const work of ['regenerate', 'destroy'] as const) {
      const browser = createBrowser(sessions);
      const session = browser.open();
      session.set('a', 1);
      const promisedId = session.sessionID!;
      backend.after = () => Promise.reject(createError('session-test', 'interrupted', 'The connection broke.'));
      await expect(session.commit()).rejects.toMatchObject({ code: 'interrupted' });
      backend.after = (_operation, answer) => answer;
      expect(await backend.peek(promisedId)).not.toBeNull();
      await session[work]();
      await browser.take(session);
      expect((await backend.peek(promisedId)) !== null).toBe(browser.id === promisedId);
    }
  });

  it('a failed read is never a miss, and may be tried again', async () => {
    const { backend, browser } = await startSession();
    const session = browser.open();
    backend.before = () => Promise.reject(new Error('disk full'));
    await expect(session.get('visits')).rejects.toMatchObject({ code: 'refused', operation: 'read' });
    await expect(session.regenerate()).rejects.toMatchObject({ code: 'refused' });
    await expect(session.update('visits', () => 2)).rejects.toMatchObject({ code: 'refused' });
    backend.before = () => undefined;
    expect(await session.get('visits')).toBe(1);
    expect(await session.commit()).toBeUndefined();
    expect(session.sessionID).toBe(browser.id);
  });

  it('renews the cookie with every write when the cookie has an age', async () => {
    const backend = createBackend();
    const sessions = createSessions({ driver: backend.driver, cookie: { maxAge: 600 } });
    const browser = createBrowser(sessions);
    await browser.visit((session) => session.set('visits', 1));
    const { cookie } = browser;
    const write = async (work: (session: Session) => unknown) => {
      const session = browser.open();
      await work(session);
      return browser.take(session);
    };
    expect(await write((session) => session.set('a', 1))).toBe(
      `${cookie}; Max-Age=600; Path=/; HttpOnly; Secure; SameSite=Lax`,
    );
    expect(await write((session) => session.delete('a'))).toContain(cookie!);
    expect(await write((session) => session.update('visits', () => 2))).toContain(cookie!);
    expect(await write((session) => session.get('visits'))).toBeUndefined();
    expect(await write((session) => session.update('visits', () => 2))).toBeUndefined();
  });

  it('a browser that has its cookie gets none otherwise', async () => {
    const { browser } = await startSession();
    const session = browser.open();
    session.set('a', 1);
    expect(await session.commit()).toBeUndefined();
  });
});

describe('destroy', () => {
  it('removes a session that cannot be read, and its cookie', async () => {
    const { backend, browser } = await startSession();
    backend.before = (operation) => {
      if (operation !== 'destroy') throw new Error('The stored record is corrupt, or a newer version wrote it.');
    };
    const session = browser.open();
    await expect(session.get('visits')).rejects.toMatchObject({ code: 'refused' });
    session.destroy();
    expect(await session.commit()).toContain('astro-session=; Max-Age=0');
  });

  it('removes the session and the cookie', async () => {
    const { backend, browser } = await startSession();
    const old = createBrowser(createSessions({ driver: backend.driver }), browser.cookie);
    const session = browser.open();
    session.destroy();
    expect(session.sessionID).toBeUndefined();
    expect(await session.get('visits')).toBeUndefined();
    expect(await session.commit()).toBe('astro-session=; Max-Age=0; Path=/; HttpOnly; Secure; SameSite=Lax');
    expect(await backend.peek(old.id)).toBeNull();
    expect(await old.open().keys()).toEqual([]);
  });

  it('drops what was set before; what is set afterwards begins a new session', async () => {
    const { backend, browser } = await startSession();
    const oldId = browser.id;
    await browser.visit(async (session) => {
      session.set('before', 1);
      session.destroy();
      session.set('after', 2);
      expect(await session.entries()).toEqual([['after', 2]]);
    });
    expect(browser.id).not.toBe(oldId);
    expect(await browser.open().entries()).toEqual([['after', 2]]);
    expect(await backend.peek(oldId)).toBeNull();
  });

  it('clears the cookie of a session that is gone already', async () => {
    const { sessions } = await startSession();
    const session = sessions.open(`astro-session=${UNKNOWN}`);
    await session.get('visits');
    session.destroy();
    expect(await session.commit()).toContain('astro-session=; Max-Age=0');
  });

  it('of a session that was just begun leaves nothing behind', async () => {
    const { backend, sessions } = await startSession();
    const session = sessions.open(undefined);
    await session.update('a', () => 1);
    const id = session.sessionID!;
    expect(await backend.peek(id)).not.toBeNull();
    session.destroy();
    expect(await session.commit()).toBeUndefined();
    expect(await backend.peek(id)).toBeNull();
  });

  it('after regenerate removes the session under both ids', async () => {
    const { backend, browser } = await startSession();
    const oldId = browser.id;
    const session = browser.open();
    await session.regenerate();
    const newId = session.sessionID!;
    session.destroy();
    expect(await session.commit()).toContain('Max-Age=0');
    expect(await backend.peek(oldId)).toBeNull();
    expect(await backend.peek(newId)).toBeNull();
  });

  it('while a read is under way: nothing of the old session gets into the new one', async () => {
    const { browser } = await startSession({ secret: 1 });
    await browser.visit(async (session) => {
      const reading = session.get('secret');
      session.destroy();
      session.set('fresh', 2);
      await reading;
      expect(await session.entries()).toEqual([['fresh', 2]]);
    });
    expect(await browser.open().entries()).toEqual([['fresh', 2]]);
  });

  it('while an update is under way: it begins a new session like everything that comes later', async () => {
    const { backend, browser } = await startSession({ visits: 41, secret: 1 });
    const oldId = browser.id;
    await browser.visit(async (session) => {
      const update = session.update('visits', async (visits) => {
        await Promise.resolve();
        return ((visits as number | undefined) ?? 0) + 1;
      });
      session.destroy();
      await update;
    });
    expect(await backend.peek(oldId)).toBeNull();
    expect(await browser.open().entries()).toEqual([['visits', 1]]);
  });

  it('that fails is not forgotten: commit may be tried again', async () => {
    const { backend, browser } = await startSession();
    const oldId = browser.id;
    const session = browser.open();
    session.destroy();
    session.set('fresh', 1);
    backend.before = (operation) => operation === 'destroy' && Promise.reject(new Error('disk full'));
    await expect(session.commit()).rejects.toMatchObject({ code: 'refused' });
    backend.before = () => undefined;
    await browser.take(session);
    expect(await backend.peek(oldId)).toBeNull();
    expect(await browser.open().entries()).toEqual([['fresh', 1]]);
  });
});

describe('load', () => {
  it('continues with another session', async () => {
    const { browser, sessions } = await startSession({ visits: 1 });
    const other = createBrowser(sessions);
    await other.visit((session) => session.set('mine', 1));
    const before = other.id;
    await other.visit(async (session) => {
      session.set('dropped', 1);
      await session.load(browser.id);
      expect(session.sessionID).toBe(browser.id);
      expect(await session.get('mine')).toBeUndefined();
      session.set('added', 1);
    });
    expect(other.id).toBe(browser.id);
    expect(await browser.open().entries()).toEqual([
      ['visits', 1],
      ['added', 1],
    ]);
    expect(await sessions.open(`astro-session=${before}`).keys()).toEqual(['mine']);
  });

  it('of its own session takes no new cookie', async () => {
    const { backend, browser } = await startSession();
    const session = browser.open();
    await session.load(browser.id);
    expect(await session.get('visits')).toBe(1);
    expect(await session.commit()).toBeUndefined();
    expect(backend.calls).toEqual(['read']);
  });

  it.each([UNKNOWN, 'short', ''])('of %j gives an empty session', async (id) => {
    const { browser } = await startSession();
    const session = browser.open();
    await session.load(id);
    expect(await session.keys()).toEqual([]);
    expect(session.sessionID).toBeUndefined();
    expect(await session.commit()).toBeUndefined();
    expect(await browser.open().get('visits')).toBe(1);
  });

  it('that fails adopts nothing', async () => {
    const { backend, browser, sessions } = await startSession();
    const other = createBrowser(sessions);
    const session = other.open();
    backend.before = () => Promise.reject(new Error('disk full'));
    await expect(session.load(UNKNOWN)).rejects.toMatchObject({ code: 'refused' });
    backend.before = () => undefined;
    session.set('a', 1);
    await other.take(session);
    expect(await backend.peek(UNKNOWN)).toBeNull();
    expect(other.id).not.toBe(UNKNOWN);
    expect(other.id).not.toBe(browser.id);
  });

  it('while a read is under way is not undone by what was read', async () => {
    const { browser, sessions } = await startSession({ mine: 1 });
    const other = createBrowser(sessions);
    await other.visit((session) => session.set('theirs', 2));
    await other.visit(async (session) => {
      const reading = session.get('theirs');
      await Promise.all([session.load(browser.id), reading]);
      expect(await session.get('mine')).toBe(1);
      expect(await session.keys()).toEqual(['mine']);
    });
    expect(await sessions.open(other.cookie).keys()).toEqual(['mine']);
  });

  it('after destroy removes the one and keeps the other', async () => {
    const { backend, browser, sessions } = await startSession();
    const other = createBrowser(sessions);
    await other.visit((session) => session.set('a', 1));
    const destroyed = other.id;
    await other.visit(async (session) => {
      session.destroy();
      await session.load(browser.id);
    });
    expect(other.id).toBe(browser.id);
    expect(await backend.peek(destroyed)).toBeNull();
  });
});

describe('options', () => {
  it('what is not a driver is refused with a word on what is', () => {
    for (const driver of [memory, undefined, null, {}, { entrypoint: 'x' }]) {
      expect(() => createSessions({ driver: driver as never })).toThrow(/default export of a runtime/);
    }
  });

  it("Node's own request, and whatever else holds no cookies, is refused with a word on what to pass", () => {
    const { open } = createSessions({ driver: memory() });
    for (const request of [{ headers: { cookie: 'a=b' } }, 5, true, URL, Symbol('a')]) {
      expect(() => open(request as never)).toThrow(/`request\.headers\.cookie`/);
    }
  });

  it('none at all are refused with a word on what is missing', () => {
    for (const nothing of [undefined, null, {}])
      expect(() => createSessions(nothing as never)).toThrow(/`driver` must be/);
  });

  it('a cookie that is neither a name nor attributes is refused', () => {
    for (const cookie of [5, ['sid'], true]) {
      expect(() => createSessions({ driver: memory(), cookie: cookie as never })).toThrow(/`cookie` must be/);
    }
  });

  it('an update that is no function is refused', async () => {
    await expect(
      createSessions({ driver: memory() })
        .open(null)
        .update('a', 5 as never),
    ).rejects.toThrow(/takes a function/);
  });

  it('an error about a value names no key of a Map in it', () => {
    const session = createSessions({ driver: memory() }).open(null);
    expect(() => session.set('a', { list: [new Map([['ada@example.com', () => 1]])] })).toThrow(
      / at \.list\[0\]\.get\(…\)\. /,
    );
  });

  it.each([0, -1, Number.NaN])('a ttl of %s is refused', (ttl) => {
    expect(() => createSessions({ driver: memory(), ttl })).toThrow(/`ttl` must be a positive number of seconds/);
  });

  it('refuse an option that does not exist, and say which one was meant', () => {
    expect(() => createSessions({ driver: memory(), tll: 3600 } as never)).toThrow(
      '`tll` is not an option. Options: driver, cookie, ttl.',
    );
  });

  it('the cookie has the name that it is given', async () => {
    for (const cookie of ['sid', { name: 'sid' }]) {
      const session = createSessions({ driver: memory(), cookie }).open('astro-session=not-this-one-at-all');
      expect(session.sessionID).toBeUndefined();
      session.set('a', 1);
      expect(await session.commit()).toMatch(/^sid=[0-9a-f-]{36};/);
    }
  });
});

describe('types', () => {
  interface Shop {
    user: { name: string };
    visits: number;
    tags?: string[];
  }

  it('follow what the session holds', () => {
    const { open } = createSessions<Shop>({ driver: memory() });
    const session = open(undefined);
    expectTypeOf(session).toEqualTypeOf<Session<Shop>>();
    expectTypeOf(session.get('user')).resolves.toEqualTypeOf<{ name: string } | undefined>();
    expectTypeOf(session.get('tags')).resolves.toEqualTypeOf<string[] | undefined>();
    expectTypeOf(session.keys()).resolves.toEqualTypeOf<('user' | 'visits' | 'tags')[]>();
    expectTypeOf(session.set<'visits'>)
      .parameter(1)
      .toEqualTypeOf<number>();
    expectTypeOf(session.sessionID).toEqualTypeOf<string | undefined>();
    const typed = () => {
      // @ts-expect-error there is no such key
      session.set('nobody', 1);
      // @ts-expect-error it is a number
      session.set('visits', '1');
      // @ts-expect-error it is a number
      void session.update('visits', () => '1');
      void session.update('visits', (visits = 0) => visits + 1);
    };
    expect(typed).toBeTypeOf('function');
  });

  it('take undefined for an option that is left out, also with exactOptionalPropertyTypes', () => {
    const ttl: number | undefined = undefined;
    const cookie: SessionCookie | undefined = undefined;
    expect(() => createSessions({ driver: memory(), ttl, cookie })).not.toThrow();
    const none = { name: undefined, domain: undefined, path: undefined, maxAge: undefined, sameSite: undefined };
    expect(() => createSessions({ driver: memory(), cookie: { ...none, secure: undefined } })).not.toThrow();
  });

  it('are open when nothing is said', () => {
    const session = createSessions({ driver: memory() }).open(new Request('http://localhost/'));
    expectTypeOf(session.get('anything')).resolves.toEqualTypeOf<unknown>();
    session.set('anything', new Map());
  });
});
