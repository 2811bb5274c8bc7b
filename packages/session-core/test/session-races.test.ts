import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { createSessions, type Session } from '@coatcheck/session-core';
import { createError, type SharedOptions, type ReportedEvent } from '@coatcheck/session-core/driver';
import { createBackend, createBrowser, type Backend, type Browser, type Operation } from './support/backend.ts';

/** How long a removed session refuses writes. */
const TOMBSTONE_MS = 60_000;
/** For how long after its read a request puts back what the backend lost: a write takes `timeout` at most, and a tombstone outlives it. */
const RESTORE_MS = TOMBSTONE_MS - 5000;

interface Data {
  count: number;
  cart: string[];
  user: string;
  flash: string;
  secret: string;
}

/** Two browsers with one cookie: two tabs, or two requests at once. */
async function startTwoTabs(values: Partial<Data>, config?: SharedOptions) {
  const backend = createBackend(config);
  const sessions = createSessions<Data>({ driver: backend.driver });
  const one = createBrowser(sessions);
  await one.visit((session) => {
    for (const [key, value] of Object.entries(values)) session.set(key as 'user', value as string);
  });
  const two = createBrowser(sessions, one.cookie);
  backend.calls = [];
  return { backend, sessions, one, two };
}

/** Does something once, right before the store is asked to do `operation`. */
function rightBefore(backend: Backend, operation: Operation, work: () => unknown): void {
  backend.before = async (asked) => {
    if (asked !== operation) return;
    backend.before = () => undefined;
    await work();
  };
}

/** Holds the next patch back: `asked` resolves when the store is about to be asked, which it is after `release`. */
function holdPatch(backend: Backend, meanwhile: () => unknown = () => undefined) {
  const { promise: asked, resolve: onAsked } = Promise.withResolvers<void>();
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  rightBefore(backend, 'patch', async () => {
    onAsked();
    await released;
    await meanwhile();
  });
  return { asked, release };
}

/** Stores an update while its request loads the session of another browser. `meanwhile` runs right before the update is stored. */
async function updateWhileLoading(meanwhile?: (backend: Backend) => unknown) {
  const { backend, one, sessions } = await startTwoTabs({ count: 1 });
  const other = createBrowser(sessions);
  await other.visit((session) => session.set('user', 'bob'));
  const session = one.open();
  const { asked, release } = holdPatch(backend, () => meanwhile?.(backend));
  const update = session.update('count', () => 2);
  await asked;
  await session.load(other.id);
  release();
  await update;
  return { backend, one, other, session };
}

function failOnce(backend: Backend, operation: Operation): void {
  rightBefore(backend, operation, () => Promise.reject(new Error('disk full')));
}

function listen(event: ReportedEvent): string[] {
  const seen: string[] = [];
  const listener = (message: unknown) => void seen.push((message as { driver: string }).driver);
  subscribe(`coatcheck:${event}`, listener);
  onTestFinished(() => void unsubscribe(`coatcheck:${event}`, listener));
  return seen;
}

async function signOut(browser: Browser<Data>): Promise<void> {
  await browser.visit((session) => session.destroy());
}

afterEach(() => void vi.useRealTimers());

describe('requests at once', () => {
  it('that change different keys never erase each other', async () => {
    const { one, sessions } = await startTwoTabs({ count: 0 });
    const keys = Array.from({ length: 64 }, (_, index) => `key-${index}`);
    const requests = keys.map(async (key) => {
      const session = sessions.open(one.cookie);
      await session.get('count');
      session.set(key as 'user', key);
      await session.commit();
    });
    await Promise.all(requests);
    expect((await one.open().keys()).length).toBe(65);
  });

  it('on one key: the last write wins, and a deletion deletes that key alone', async () => {
    const { one, two } = await startTwoTabs({ user: 'ann', flash: 'hello' });
    const [first, second] = [one.open(), two.open()];
    await Promise.all([first.entries(), second.entries()]);
    first.delete('flash');
    first.set('user', 'bob');
    second.set('user', 'eve');
    await first.commit();
    await second.commit();
    expect(await one.open().entries()).toEqual([['user', 'eve']]);
  });
});

describe('update', () => {
  it('64 at once from 64 requests lose none', async () => {
    const { backend, one, sessions } = await startTwoTabs({ count: 0 });
    // As a network would: answers come in any order.
    backend.before = async () => {
      for (let turns = Math.floor(Math.random() * 4); turns > 0; turns--) await new Promise(setImmediate);
    };
    const results = await Promise.all(
      Array.from({ length: 64 }, async () => sessions.open(one.cookie).update('count', (count = 0) => count + 1)),
    );
    expect(await one.open().get('count')).toBe(64);
    expect(new Set(results).size).toBe(64);
  });

  it('many at once in one request lose none, in a known session and in a new one', async () => {
    const { one, sessions } = await startTwoTabs({ count: 0 });
    for (const browser of [one, createBrowser(sessions)]) {
      await browser.visit(async (session) => {
        await Promise.all([1, 2, 3, 4].map(() => session.update('count', (count = 0) => count + 1)));
        expect(await session.get('count')).toBe(4);
      });
      expect(await browser.open().get('count')).toBe(4);
    }
  });

  it('many at once of a value that this request has set lose none', async () => {
    const { one } = await startTwoTabs({ count: 50 });
    await one.visit(async (session) => {
      session.set('count', 0);
      await Promise.all([1, 2, 3, 4].map(() => session.update('count', async (count = 0) => count + 1)));
    });
    expect(await one.open().get('count')).toBe(4);
  });

  it('is stored before commit, and needs none in a known session', async () => {
    const { one, two } = await startTwoTabs({ count: 1 });
    const session = one.open();
    expect(await session.update('count', (count = 0) => count + 1)).toBe(2);
    expect(await two.open().get('count')).toBe(2);
    expect(await session.get('count')).toBe(2);
    expect(await session.commit()).toBeUndefined();
  });

  it('begins a session for a new visitor', async () => {
    const { sessions } = await startTwoTabs({});
    const browser = createBrowser(sessions);
    await browser.visit(async (session) => {
      session.set('user', 'ann');
      await session.update('count', (count = 10) => count + 1);
      await session.update('count', (count = 0) => count + 1);
    });
    expect(await browser.open().entries()).toEqual([
      ['count', 12],
      ['user', 'ann'],
    ]);
  });

  it('that is being stored while the request commits is part of the new session', async () => {
    const { backend, sessions } = await startTwoTabs({});
    const browser = createBrowser(sessions);
    const session = browser.open();
    const { promise: asked, resolve: onAsked } = Promise.withResolvers<void>();
    const { promise: answer, resolve: onAnswer } = Promise.withResolvers<void>();
    rightBefore(backend, 'patch', () => (onAsked(), answer));
    const update = session.update('count', () => 1);
    await asked;
    const taking = browser.take(session);
    onAnswer();
    expect(await update).toBe(1);
    expect(await taking).toContain('astro-session=');
    expect(await browser.open().get('count')).toBe(1);
  });

  it('deletes what is answered with undefined', async () => {
    const { one } = await startTwoTabs({ count: 1, user: 'ann' });
    expect(await one.visit((session) => session.update('count', () => undefined))).toBeUndefined();
    expect(await one.open().keys()).toEqual(['user']);
    expect(await one.visit((session) => session.update('count', (count = 5) => count + 1))).toBe(6);
  });

  it('starts from what this request has set, and is stored with it', async () => {
    const { backend, one } = await startTwoTabs({ count: 1 });
    await one.visit(async (session) => {
      session.set('count', 10);
      expect(await session.update('count', async (count = 0) => count + 1)).toBe(11);
      expect(await session.get('count')).toBe(11);
    });
    expect(await one.open().get('count')).toBe(11);
    await one.visit(async (session) => {
      session.delete('count');
      expect(await session.update('count', (count = 100) => count + 1)).toBe(101);
      expect(await session.update('count', () => undefined)).toBeUndefined();
    });
    expect(await one.open().has('count')).toBe(false);
    expect(backend.calls.filter((call) => call === 'patch').length).toBe(2);
  });

  it('runs again on what others have made of the value', async () => {
    const { backend, one, two } = await startTwoTabs({ cart: ['hat'] });
    const seen: unknown[] = [];
    rightBefore(backend, 'patch', () => two.visit((session) => session.update('cart', () => ['coat'])));
    const result = await one.visit((session) =>
      session.update('cart', (cart = []) => {
        seen.push([...cart]);
        cart.push('scarf');
        return cart;
      }),
    );
    expect(seen).toEqual([['hat'], ['coat']]);
    expect(result).toEqual(['coat', 'scarf']);
    expect(await two.open().get('cart')).toEqual(['coat', 'scarf']);
  });

  it('does not mind what others do to other keys', async () => {
    const { backend, one, two } = await startTwoTabs({ count: 1 });
    rightBefore(backend, 'patch', () => two.visit((session) => session.set('user', 'ann')));
    const change = vi.fn<(count?: number) => number>((count = 0) => count + 1);
    await one.visit((session) => session.update('count', change));
    expect(change).toHaveBeenCalledTimes(1);
    expect(await one.open().entries()).toEqual([
      ['count', 2],
      ['user', 'ann'],
    ]);
  });

  it('changes nothing when the change throws', async () => {
    const { backend, one, sessions } = await startTwoTabs({ cart: ['hat'] });
    const problem = new Error('no room');
    await one.visit(async (session) => {
      const change = (cart: string[] = []) => {
        cart.push('coat');
        throw problem;
      };
      await expect(session.update('cart', change)).rejects.toBe(problem);
      expect(await session.get('cart')).toEqual(['hat']);
      session.set('cart', ['scarf']);
      await expect(session.update('cart', change)).rejects.toBe(problem);
      expect(await session.get('cart')).toEqual(['scarf']);
      session.set('cart', ['hat']);
    });
    expect(backend.calls).toEqual(['read']);
    const anonymous = sessions.open(undefined);
    await expect(anonymous.update('count', () => Promise.reject(problem))).rejects.toBe(problem);
    expect(await anonymous.commit()).toBeUndefined();
  });

  it('refuses what cannot be stored, and changes nothing', async () => {
    const { one } = await startTwoTabs({ cart: ['hat'] });
    const session = one.open();
    const change = () => [(() => 1) as never];
    await expect(session.update('cart', change)).rejects.toMatchObject({ code: 'invalid-data' });
    expect(await one.open().get('cart')).toEqual(['hat']);
  });

  it('tells whoever listens that it met another change', async () => {
    const conflicts = listen('conflict');
    const { backend, one, two } = await startTwoTabs({ count: 0 });
    rightBefore(backend, 'patch', () => two.visit((session) => session.update('count', (count = 0) => count + 1)));
    await one.visit((session) => session.update('count', (count = 0) => count + 1));
    expect(await one.visit((session) => session.get('count'))).toBe(2);
    expect(conflicts).toHaveLength(1);
  });

  it('rejects when others are faster until the deadline', async () => {
    const { backend, one } = await startTwoTabs({ count: 1 }, { timeout: 5000 });
    vi.useFakeTimers({ toFake: ['Date', 'performance'] });
    onTestFinished(() => void vi.useRealTimers());
    backend.after = (operation, answer) => {
      if (operation !== 'patch') return answer;
      vi.advanceTimersByTime(1000);
      return 'conflict';
    };
    const session = one.open();
    const update = session.update('count', (count = 0) => count + 1);
    await expect(update).rejects.toMatchObject({ code: 'timeout', operation: 'update' });
    backend.after = (_operation, answer) => answer;
    expect(await session.update('count', () => 3)).toBe(3);
  });

  it('rejects when the backend fails, and may be tried again', async () => {
    const { backend, one } = await startTwoTabs({ count: 1 });
    const session = one.open();
    failOnce(backend, 'patch');
    await expect(session.update('count', (count = 0) => count + 1)).rejects.toMatchObject({ code: 'refused' });
    expect(await session.update('count', (count = 0) => count + 1)).toBe(2);
  });

  it('of a session that was signed out meanwhile is dropped, and no cookie is sent', async () => {
    const { backend, one, two } = await startTwoTabs({ count: 1 });
    const dropped = listen('destroyed-write');
    const id = one.id;
    const session = one.open();
    rightBefore(backend, 'patch', () => signOut(two));
    await session.update('count', (count = 0) => count + 1);
    expect(await session.keys()).toEqual([]);
    expect(await session.commit()).toBeUndefined();
    expect(await backend.peek(id)).toBeNull();
    expect(dropped.length).toBe(1);
  });

  it('that has to be made again on a session that was signed out meanwhile begins no new one', async () => {
    const { backend, one, two } = await startTwoTabs({ count: 1 });
    for (const prepare of [async () => undefined, (session: ReturnType<typeof one.open>) => session.regenerate()]) {
      await one.visit((session) => session.set('count', 1));
      two.cookie = one.cookie;
      const session = one.open();
      await prepare(session);
      rightBefore(backend, 'patch', async () => {
        await two.visit((other) => other.update('count', () => 50));
        rightBefore(backend, 'read', () => signOut(two));
      });
      await session.update('count', (count = 0) => count + 1);
      expect(await session.keys()).toEqual([]);
      expect(await session.commit()).toBeUndefined();
      one.cookie = undefined;
    }
  });

  it('is not run again on a session that was signed out meanwhile', async () => {
    const { backend, one, two } = await startTwoTabs({ count: 1 });
    rightBefore(backend, 'patch', async () => {
      await two.visit((other) => other.update('count', () => 50));
      rightBefore(backend, 'read', () => signOut(two));
    });
    const change = vi.fn<(count?: number) => number>((count = 0) => count + 1);
    await one.visit((session) => session.update('count', change));
    expect(change).toHaveBeenCalledTimes(1);
  });

  it('that is being stored while the request destroys the session goes with it', async () => {
    const { backend, one, two } = await startTwoTabs({ count: 1 });
    // The second time, another request has destroyed the session before.
    for (const meanwhile of [() => undefined, () => signOut(two)]) {
      await one.visit((session) => session.set('count', 1));
      two.cookie = one.cookie;
      const session = one.open();
      const { asked, release } = holdPatch(backend, meanwhile);
      const update = session.update('count', () => 2);
      await asked;
      session.destroy();
      session.set('user', 'ann');
      release();
      await update;
      expect(await session.entries()).toEqual([['user', 'ann']]);
      await one.take(session);
      expect(await one.open().entries()).toEqual([['user', 'ann']]);
    }
  });

  it('that is being stored while the request loads another session is not part of that one', async () => {
    const { one, other, session } = await updateWhileLoading();
    expect(await session.entries()).toEqual([['user', 'bob']]);
    await one.take(session);
    expect(await other.open().entries()).toEqual([['user', 'bob']]);
  });

  it('of a record that the backend lost, while the request loads another session, puts back nothing of that one', async () => {
    const { backend, one, session } = await updateWhileLoading((lost) => lost.evict());
    expect(await session.entries()).toEqual([['user', 'bob']]);
    expect(await backend.peek(one.id)).toBeNull();
  });

  it('that is being stored in a new session is not lost when another one has to be made again', async () => {
    const { backend, one } = await startTwoTabs({ count: 1 });
    const session = one.open();
    const { promise: isNew, resolve: onNew } = Promise.withResolvers<void>();
    await session.get('count');
    const again = session.update('count', async (count = 10) => (await isNew, count + 1));
    session.destroy();
    const { asked, release } = holdPatch(backend);
    const first = session.update('user', () => 'ann');
    await asked;
    onNew();
    expect(await again).toBe(11);
    release();
    await first;
    await one.take(session);
    expect(Object.fromEntries(await one.open().entries())).toEqual({ count: 11, user: 'ann' });
  });

  it('of a record that the backend lost puts back what was read', async () => {
    const { backend, one } = await startTwoTabs({ count: 1, user: 'ann' });
    rightBefore(backend, 'patch', () => backend.evict());
    expect(await one.visit((session) => session.update('count', (count = 0) => count + 1))).toBe(2);
    expect(Object.fromEntries(await one.open().entries())).toEqual({ count: 2, user: 'ann' });
  });
});

describe('a session that was removed stays removed', () => {
  it('and a request that comes late does not clear the cookie of a sign-in that was answered meanwhile', async () => {
    const { one, two } = await startTwoTabs({ user: 'ann', cart: ['hat'] });
    const late = two.open();
    late.set('cart', ['hat', 'coat']);
    await signOut(one);
    await one.visit((session) => session.set('user', 'ann'));
    const signedIn = one.cookie;
    expect(signedIn).toBeDefined();
    await one.take(late);
    expect(one.cookie).toBe(signedIn);
    expect(await one.open().get('user')).toBe('ann');
  });

  it.each<[string, (session: Session<Data>) => Promise<unknown>]>([
    ['updates', (session) => session.update('count', (count = 0) => count + 1)],
    ['updates twice at once', (session) => Promise.all([1, 2].map(() => session.update('count', (n = 0) => n + 1)))],
    ['reads and then sets', async (session) => (await session.get('user'), session.set('count', 1))],
    ['sets and then reads', async (session) => (session.set('count', 1), await session.get('user'))],
  ])('and a request that comes late and %s sends no cookie either', async (_what, work) => {
    const { one, two } = await startTwoTabs({ user: 'ann', cart: ['hat'] });
    const late = two.open();
    const dropped = listen('destroyed-write');
    await one.visit((session) => session.regenerate());
    const signedIn = one.cookie;
    await work(late);
    expect(await late.commit()).toBeUndefined();
    expect(await late.keys()).toEqual([]);
    expect(dropped).toHaveLength(1);
    expect(one.cookie).toBe(signedIn);
    expect(await one.open().get('cart')).toEqual(['hat']);
  });

  it('and a request that signs in late gets a session of its own', async () => {
    const { one, two } = await startTwoTabs({ user: 'ann', cart: ['hat'] });
    const late = two.open();
    await signOut(one);
    await late.get('user');
    await late.regenerate();
    late.set('user', 'bob');
    await two.take(late);
    expect(await two.open().entries()).toEqual([['user', 'bob']]);
  });

  it('and a request that destroys it once more still clears its cookie', async () => {
    const { one, two } = await startTwoTabs({ user: 'ann' });
    const late = two.open();
    await late.get('user');
    await signOut(one);
    late.destroy();
    expect(await late.commit()).toBe('astro-session=; Max-Age=0; Path=/; HttpOnly; Secure; SameSite=Lax');
  });

  it('whatever a request under way sets, whether it has read or not', async () => {
    for (const reads of [true, false]) {
      const { backend, one, two } = await startTwoTabs({ user: 'ann' });
      const dropped = listen('destroyed-write');
      const id = one.id;
      const session = one.open();
      if (reads) await session.get('user');
      session.set('cart', ['hat']);
      await signOut(two);
      expect(await session.commit()).toBeUndefined();
      expect(await backend.peek(id)).toBeNull();
      expect(await session.keys()).toEqual([]);
      expect(dropped).toEqual([expect.stringContaining('session-test')]);
    }
  });

  it('also when the request regenerates it: only what it set itself lives on, under an id of its own', async () => {
    const { backend, one, two } = await startTwoTabs({ user: 'ann', secret: 'x' });
    const dropped = listen('destroyed-write');
    const oldId = one.id;
    const session = one.open();
    await session.regenerate();
    const promisedId = session.sessionID!;
    session.set('cart', ['hat']);
    await signOut(two);
    await one.take(session);
    expect(one.id).not.toBe(oldId);
    expect(await one.open().entries()).toEqual([['cart', ['hat']]]);
    expect(await session.entries()).toEqual([['cart', ['hat']]]);
    expect(await backend.peek(oldId)).toBeNull();
    expect(await backend.peek(promisedId)).toBeNull();
    expect(dropped.length).toBe(1);
  });

  it('also when the request regenerates it and sets nothing: no cookie is sent', async () => {
    const { backend, one, two } = await startTwoTabs({ user: 'ann' });
    const session = one.open();
    await session.regenerate();
    await signOut(two);
    expect(await session.commit()).toBeUndefined();
    expect(await session.keys()).toEqual([]);
    expect(await backend.peek(session.sessionID ?? one.id)).toBeNull();
  });

  it('also when the removal is so long ago that nobody remembers it', async () => {
    vi.useFakeTimers({ toFake: ['Date', 'performance'] });
    for (const regenerates of [true, false]) {
      const { backend, one, two } = await startTwoTabs({ user: 'ann', secret: 'x' });
      const dropped = listen('stale-write');
      const oldId = one.id;
      const session = one.open();
      await session.get('user');
      if (regenerates) await session.regenerate();
      session.set('cart', ['hat']);
      await signOut(two);
      vi.advanceTimersByTime(TOMBSTONE_MS + 1);
      await one.take(session);
      expect(dropped.length).toBe(1);
      expect(await backend.peek(oldId)).toBeNull();
      expect(await one.open().has('secret')).toBe(false);
    }
  });

  describe('a record that the backend lost', () => {
    async function loseRecord(passMs: number, inBetween?: (session: Session<Data>) => unknown) {
      vi.useFakeTimers({ toFake: ['Date', 'performance'] });
      const { backend, one } = await startTwoTabs({ user: 'ann', flash: 'hello' });
      const dropped = listen('stale-write');
      const session = one.open();
      await session.get('user');
      await inBetween?.(session);
      session.set('cart', ['hat']);
      session.delete('flash');
      backend.evict();
      vi.advanceTimersByTime(passMs);
      const setCookie = await one.take(session);
      return { one, dropped, setCookie };
    }

    it('is put back as it was read, with the changes', async () => {
      const { one, dropped } = await loseRecord(RESTORE_MS - 1);
      expect(Object.fromEntries(await one.open().entries())).toEqual({ user: 'ann', cart: ['hat'] });
      expect(dropped).toEqual([]);
    });

    it('is put back when the request has met it lately, by an update', async () => {
      const { one, dropped } = await loseRecord(RESTORE_MS / 2, (session) => {
        vi.advanceTimersByTime(RESTORE_MS / 2);
        return session.update('count', () => 1);
      });
      expect(Object.fromEntries(await one.open().entries())).toEqual({ user: 'ann', cart: ['hat'], count: 1 });
      expect(dropped).toEqual([]);
    });

    it('is not put back by a request that read it so long ago that it may have been removed', async () => {
      const { setCookie, dropped } = await loseRecord(RESTORE_MS);
      expect(setCookie).toBeUndefined();
      expect(dropped.length).toBe(1);
    });
  });
});

describe('regenerate', () => {
  it('keeps the data under a new id; the old one is worthless', async () => {
    const { backend, one, two } = await startTwoTabs({ user: 'ann', cart: ['hat'] });
    const oldId = one.id;
    const session = one.open();
    await session.regenerate();
    expect(session.sessionID).not.toBe(oldId);
    expect(await session.get('cart')).toEqual(['hat']);
    session.set('user', 'bob');
    session.delete('cart');
    expect(await one.take(session)).toContain(session.sessionID!);
    expect(backend.calls).toEqual(['read', 'patch', 'destroy']);
    expect(await one.open().entries()).toEqual([['user', 'bob']]);
    expect(await backend.peek(oldId)).toBeNull();
    expect(await two.open().keys()).toEqual([]);
    await two.visit((other) => other.set('user', 'eve'));
    expect(await backend.peek(oldId)).toBeNull();
  });

  it('twice is once', async () => {
    const { backend, one, two } = await startTwoTabs({ user: 'ann' });
    await one.visit(async (session) => {
      await Promise.all([session.regenerate(), session.regenerate()]);
      await session.regenerate();
    });
    expect(backend.calls).toEqual(['read', 'patch', 'destroy']);
    expect(await backend.peek(two.id)).toBeNull();
    expect(await one.open().get('user')).toBe('ann');
  });

  it('of an empty session keeps an empty session', async () => {
    const { one } = await startTwoTabs({ user: 'ann' });
    await one.visit((session) => session.delete('user'));
    const oldId = one.id;
    await one.visit((session) => session.regenerate());
    expect(one.id).not.toBe(oldId);
    await one.visit((session) => session.set('user', 'bob'));
    expect(await one.open().entries()).toEqual([['user', 'bob']]);
  });

  it('takes over what landed in between, and leaves what this request changed', async () => {
    const { backend, one, two } = await startTwoTabs({ user: 'ann', cart: ['hat'], flash: 'hello', count: 1 });
    rightBefore(backend, 'destroy', () =>
      two.visit((session) => {
        session.set('cart', ['hat', 'coat']);
        session.set('secret', 'new');
        session.set('user', 'eve');
        session.set('count', 7);
        session.delete('flash');
      }),
    );
    await one.visit(async (session) => {
      await session.regenerate();
      session.set('user', 'bob');
      session.delete('count');
    });
    expect(Object.fromEntries(await one.open().entries())).toEqual({
      user: 'bob',
      cart: ['hat', 'coat'],
      secret: 'new',
    });
  });

  it('while a hundred updates are under way loses none that was made before it', async () => {
    const { backend, one, two } = await startTwoTabs({ count: 0 });
    backend.before = async () => {
      for (let turns = Math.floor(Math.random() * 3); turns > 0; turns--) await new Promise(setImmediate);
    };
    const oldId = one.id;
    let stored = 0;
    const updates = Array.from({ length: 100 }, async () => {
      const session = two.open();
      await session.update('count', (count = 0) => count + 1);
      // A session that is gone has cleared itself.
      if (session.sessionID === oldId) stored++;
    });
    await one.visit((session) => session.regenerate());
    await Promise.all(updates);
    expect(await one.open().get('count')).toBe(stored);
  });

  it('together with update: the value is in the new session', async () => {
    const { one } = await startTwoTabs({ count: 1, user: 'ann' });
    await one.visit(async (session) => {
      await session.regenerate();
      await session.update('count', (count = 0) => count + 1);
      await session.regenerate();
    });
    expect(await one.open().entries()).toEqual([
      ['count', 2],
      ['user', 'ann'],
    ]);
  });

  it('of a session that this request began by an update', async () => {
    const { backend, sessions } = await startTwoTabs({});
    const browser = createBrowser(sessions);
    let firstId = '';
    await browser.visit(async (session) => {
      await session.update('count', () => 1);
      firstId = session.sessionID!;
      await session.regenerate();
    });
    expect(browser.id).not.toBe(firstId);
    expect(await backend.peek(firstId)).toBeNull();
    expect(await browser.open().get('count')).toBe(1);
  });

  it('of a record that was lost meanwhile keeps what was read', async () => {
    const { backend, one } = await startTwoTabs({ user: 'ann' });
    await one.visit(async (session) => {
      await session.regenerate();
      backend.evict();
    });
    expect(await one.open().get('user')).toBe('ann');
  });

  it.each(['patch', 'destroy'] as const)(
    'that fails at its %s may be committed again and loses nothing',
    async (operation) => {
      const { backend, one, two } = await startTwoTabs({ user: 'ann', cart: ['hat'] });
      const session = one.open();
      await session.regenerate();
      failOnce(backend, operation);
      await expect(session.commit()).rejects.toMatchObject({ code: 'refused', operation });
      await two.visit((other) => other.set('cart', ['coat']));
      await one.take(session);
      expect(Object.fromEntries(await one.open().entries())).toEqual({ user: 'ann', cart: ['coat'] });
    },
  );

  it('whose removal is carried out and not answered may be committed again and loses nothing', async () => {
    const { backend, one } = await startTwoTabs({ user: 'ann', cart: ['hat'] });
    const session = one.open();
    await session.regenerate();
    session.set('secret', 'x');
    backend.after = (operation, answer) => {
      if (operation === 'destroy') throw createError('session-test', 'interrupted', 'The connection broke.');
      return answer;
    };
    await expect(session.commit()).rejects.toMatchObject({ code: 'interrupted' });
    backend.after = (_operation, answer) => answer;
    await one.take(session);
    expect(Object.fromEntries(await one.open().entries())).toEqual({ user: 'ann', cart: ['hat'], secret: 'x' });
  });

  it.each<['refused' | 'interrupted', 'refused' | 'interrupted']>([
    ['interrupted', 'refused'],
    ['refused', 'interrupted'],
  ])('whose removal is %s and then %s may be committed again and loses nothing', async (...codes) => {
    const { backend, one } = await startTwoTabs({ user: 'ann' });
    const session = one.open();
    await session.regenerate();
    for (const code of codes) {
      if (code === 'refused') failOnce(backend, 'destroy');
      else
        backend.after = (operation, answer) => {
          if (operation !== 'destroy') return answer;
          backend.after = (_operation, its) => its;
          throw createError('session-test', 'interrupted', 'The connection broke.');
        };
      await expect(session.commit()).rejects.toMatchObject({ code });
    }
    await one.take(session);
    expect(await one.open().get('user')).toBe('ann');
  });

  it('twice gives two new ids, of which the last counts', async () => {
    const { one } = await startTwoTabs({ user: 'ann' });
    const session = one.open();
    await session.regenerate();
    const first = session.sessionID;
    await session.regenerate();
    expect(session.sessionID).not.toBe(first);
    expect(await one.take(session)).toContain(session.sessionID!);
    expect(await one.open().get('user')).toBe('ann');
  });

  it('whose removal was refused finds a sign-out that came before it was committed again', async () => {
    const { backend, one, two } = await startTwoTabs({ user: 'ann', cart: ['hat'] });
    const session = one.open();
    await session.regenerate();
    session.set('secret', 'x');
    failOnce(backend, 'destroy');
    await expect(session.commit()).rejects.toMatchObject({ code: 'refused' });
    await signOut(two);
    await one.take(session);
    expect(await one.open().entries()).toEqual([['secret', 'x']]);
  });

  it.each(['patch', 'destroy'] as const)(
    'that fails at its %s and deletes something then has deleted it',
    async (operation) => {
      const { backend, one } = await startTwoTabs({ user: 'ann', cart: ['hat'] });
      const session = one.open();
      await session.regenerate();
      // Carried out, and not answered.
      backend.after = (asked, answer) => {
        if (asked !== operation) return answer;
        backend.after = (_operation, its) => its;
        throw createError('session-test', 'interrupted', 'The connection broke.');
      };
      await expect(session.commit()).rejects.toMatchObject({ code: 'interrupted' });
      session.delete('user');
      await one.take(session);
      expect(await one.open().entries()).toEqual([['cart', ['hat']]]);
    },
  );

  it('that fails and is given up leaves nothing under the new id', async () => {
    const { backend, one } = await startTwoTabs({ user: 'ann' });
    const session = one.open();
    await session.regenerate();
    const promisedId = session.sessionID!;
    failOnce(backend, 'destroy');
    await expect(session.commit()).rejects.toMatchObject({ code: 'refused' });
    expect(await backend.peek(promisedId)).not.toBeNull();
    session.destroy();
    expect(await session.commit()).toContain('Max-Age=0');
    expect(await backend.peek(promisedId)).toBeNull();
    expect(await backend.peek(one.id)).toBeNull();
  });

  it('that fails and is done once more leaves one session', async () => {
    const { backend, one } = await startTwoTabs({ user: 'ann' });
    const session = one.open();
    await session.regenerate();
    const promisedId = session.sessionID!;
    failOnce(backend, 'destroy');
    await expect(session.commit()).rejects.toMatchObject({ code: 'refused' });
    await session.regenerate();
    await one.take(session);
    expect((await backend.peek(promisedId)) !== null).toBe(one.id === promisedId);
    expect(await one.open().get('user')).toBe('ann');
  });

  it('twice at once: the one that got the session keeps it', async () => {
    const { one, two } = await startTwoTabs({ user: 'ann', cart: ['hat'] });
    const [first, second] = [one.open(), two.open()];
    await Promise.all([first.regenerate(), second.regenerate()]);
    first.set('user', 'bob');
    second.set('user', 'bob');
    await one.take(first);
    await two.take(second);
    expect(Object.fromEntries(await one.open().entries())).toEqual({ user: 'bob', cart: ['hat'] });
    expect(Object.fromEntries(await two.open().entries())).toEqual({ user: 'bob' });
  });

  it('that fails while it takes over may be committed again and loses nothing', async () => {
    const { backend, one, two } = await startTwoTabs({ user: 'ann', cart: ['hat'], secret: 'x' });
    const session = one.open();
    await session.regenerate();
    session.set('user', 'bob');
    rightBefore(backend, 'destroy', async () => {
      await two.visit((other) => other.set('cart', ['coat']));
      failOnce(backend, 'patch');
    });
    await expect(session.commit()).rejects.toMatchObject({ code: 'refused', operation: 'patch' });
    await one.take(session);
    expect(Object.fromEntries(await one.open().entries())).toEqual({ user: 'bob', cart: ['coat'], secret: 'x' });
  });

  it('of a removed session that fails to store what is left may be committed again', async () => {
    const { backend, one, two } = await startTwoTabs({ user: 'ann', secret: 'x' });
    const session = one.open();
    await session.regenerate();
    session.set('user', 'bob');
    await signOut(two);
    rightBefore(backend, 'destroy', () => failOnce(backend, 'patch'));
    await expect(session.commit()).rejects.toMatchObject({ code: 'refused', operation: 'patch' });
    await one.take(session);
    expect(await one.open().entries()).toEqual([['user', 'bob']]);
  });
});
