import { subscribe } from 'node:diagnostics_channel';
import { createSessions, type Session } from '@coatcheck/session-core';
import { memoryDriver } from '@coatcheck/session-memory';
import memory from '@coatcheck/session-memory/runtime';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { openMemoryStore } from '../src/store.ts';

const call = { signal: new AbortController().signal };
const storing = (value: string, lifetimeMs = 3_600_000) => ({
  set: new Map([['value', `:${value}`]]),
  unset: [],
  lifetimeMs,
  defaultTtlMs: lifetimeMs,
  now: Date.now(),
});

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

it('shares sessions between instances of the driver', async () => {
  const visit = createSessions({ driver: memory() }).open('');
  visit.set('cart', ['hat']);
  const cookie = (await visit.commit())!.split(';')[0]!;
  expect(await createSessions({ driver: memory() }).open(cookie).get('cart')).toEqual(['hat']);
});

describe('a full store', () => {
  it('evicts the least recently used session, reports every eviction, and warns once', async () => {
    const warn = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    const events: unknown[] = [];
    subscribe('coatcheck:eviction', (event) => events.push(event));
    const store = openMemoryStore({ maxSessions: 2 });
    await store.patch('a', storing('1'), call);
    await store.patch('b', storing('2'), call);
    await store.read('a', call);
    await store.patch('c', storing('3'), call);
    await store.patch('d', storing('4'), call);
    expect(await store.read('b', call)).toBeNull();
    expect(await store.read('a', call)).toBeNull();
    expect(await store.read('d', call)).not.toBeNull();
    expect(events).toEqual([{ driver: 'session-memory' }, { driver: 'session-memory' }]);
    expect(warn).toHaveBeenCalledTimes(1);
    expect(warn.mock.calls[0]![0]).toMatch(/Raise `maxSessions` \(2\) or `maxBytes`/);
  });

  it('does not evict tombstones: a destroyed session stays destroyed', async () => {
    vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    for (const limits of [{ maxSessions: 2 }, { maxBytes: 2000 }]) {
      const sessions = createSessions({ driver: memory(limits) });
      const setCookie = async (cookie: string | undefined, work: (session: Session) => unknown) => {
        const session = sessions.open(cookie);
        await work(session);
        return (await session.commit())?.split(';')[0];
      };
      const cookie = await setCookie(undefined, (session) => session.set('user', 'ada'));
      const late = sessions.open(cookie);
      await late.get('user');
      await setCookie(cookie, (session) => session.destroy());
      for (let other = 0; other < 20; other++) await setCookie('', (session) => session.set('notes', 'x'.repeat(500)));
      late.set('seen', 1);
      await late.commit();
      expect(await sessions.open(cookie).keys()).toEqual([]);
    }
  });

  it('`maxBytes` limits the size of all sessions', async () => {
    vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    const store = openMemoryStore({ maxBytes: 10_000 });
    for (const key of ['a', 'b', 'c']) await store.patch(key, storing('x'.repeat(4000)), call);
    expect(await store.read('a', call)).toBeNull();
    expect(await store.read('c', call)).not.toBeNull();
  });

  it('a session larger than `maxBytes` is refused, and the old one is kept', async () => {
    const store = openMemoryStore({ maxBytes: 10_000 });
    await store.patch('a', storing('1'), call);
    await expect(store.patch('a', storing('x'.repeat(10_000)), call)).rejects.toThrow(
      'The session is larger than `maxBytes` (10000); it was not stored.',
    );
    expect(await store.read('a', call)).toEqual(new Map([['value', ':1']]));
  });
});

it('expired sessions are removed even if nobody reads them', async () => {
  const warn = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
  vi.useFakeTimers();
  const store = openMemoryStore({ maxSessions: 3 });
  await store.patch('kept', storing('1'), call);
  await store.patch('short', storing('2', 1000), call);
  await store.patch('shorter', storing('3', 10), call);
  vi.advanceTimersByTime(120_000);
  await store.patch('new', storing('4'), call);
  await store.patch('newer', storing('5'), call);
  expect(await store.read('kept', call)).not.toBeNull();
  expect(warn).not.toHaveBeenCalled();
});

it('memoryDriver() validates its options', () => {
  expect(memoryDriver({ maxSessions: 10 })).toMatchObject({ config: { maxSessions: 10 } });
  // @ts-expect-error a wrong option is also a compile error
  expect(() => memoryDriver({ max: 10 })).toThrow('`max` is not an option');
  expect(() => memoryDriver({ maxBytes: 0 })).toThrow('`maxBytes`: expected a whole number, 1 or more');
  // The cache allocates space for the maximum number of sessions.
  expect(() => memoryDriver({ maxSessions: 1e9 })).toThrow(
    '`maxSessions`: expected a whole number, from 1 to 16777216',
  );
});
