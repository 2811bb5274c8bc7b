import { randomUUID } from 'node:crypto';
import type { Change } from '@coatcheck/session-core/driver';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ask, browser, type Answer, type Browser } from './support/browser.ts';
import { startObjects, type Isolate } from './support/objects.ts';
import type { Contents } from './workers/inspected-session.ts';

// What an object keeps, for how long, and what an operation costs.

let isolates: Awaited<ReturnType<typeof startObjects>>;
let worker: Isolate;
beforeAll(async () => {
  isolates = await startObjects('sessions.ts');
  worker = isolates.all[0]!;
}, 60_000);
afterAll(() => isolates?.[Symbol.asyncDispose]());

const HOUR = 3_600_000;

let key = '';
beforeEach(() => void (key = `session:${randomUUID()}`));

const result = async (path: string, body?: unknown): Promise<unknown> => (await ask(worker, path, body)).body;
const read = (query = ''): Promise<unknown> => result(`/read?key=${key}${query}`);
const remove = (ms: number): Promise<unknown> => result(`/remove?key=${key}&ms=${ms}`);
const runAlarm = (): Promise<unknown> => result(`/alarm?key=${key}`);
const store = (value: unknown): Promise<unknown> => result(`/store?key=${key}`, value);

function patch(name: string, change: Partial<Change> = {}): Promise<unknown> {
  const now = Date.now();
  return result(`/patch?key=${key}`, {
    set: new Map([[name, ':["x"]']]),
    unset: [],
    lifetimeMs: HOUR,
    defaultTtlMs: HOUR,
    now,
    ...change,
  });
}

interface Held extends Omit<Contents, 'stored'> {
  stored?: { record: string | null; until: number; alarmAt: number };
}

async function contents(): Promise<Held> {
  const { stored, ...rest } = (await result(`/contents?key=${key}`)) as Contents & { stored?: string };
  return { ...rest, ...(stored !== undefined && { stored: JSON.parse(stored) }) };
}

const NOTHING = { tables: [], alarm: null };

describe('an unknown session', () => {
  it.each<[string, () => Promise<unknown>, unknown]>([
    ['a read', () => read(), null],
    ['a read that extends the idle limit', () => read(`&idleMs=${HOUR}`), null],
    ['a write that needs a live session', () => patch('cart', { mustExist: true }), 'missing'],
    ['an update that expects a value', () => patch('cart', { expect: new Map([['cart', ':["y"]']]) }), 'conflict'],
  ])('stores nothing and sets no alarm: %s', async (_, act, expected) => {
    expect(await act()).toEqual(expected);
    expect(await contents()).toEqual(NOTHING);
  });

  it('costs one request to its object, and a visitor without a cookie costs none', async () => {
    await result('/counts');
    await browser(worker, `astro-session=${randomUUID()}`).session();
    expect(await result('/counts')).toMatchObject({ requests: 1, get: 1, put: 0, setAlarm: 0 });
    await browser(worker).session();
    expect(await result('/counts')).toMatchObject({ requests: 0 });
  });
});

describe('when it ends', () => {
  it('the alarm of an expired session removes everything', async () => {
    expect(await patch('cart', { lifetimeMs: 100, defaultTtlMs: 100 })).toBe('applied');
    await expect.poll(contents).toEqual(NOTHING);
    expect(await read()).toBeNull();
  });

  it('the alarm of a tombstone removes everything', async () => {
    await patch('cart');
    expect(await remove(100)).toEqual({ cart: ':["x"]' });
    await expect.poll(contents).toEqual(NOTHING);
    expect(await patch('cart')).toBe('applied');
  });

  it('a session that never expires has no alarm, and gets one when it is destroyed', async () => {
    await patch('cart', { lifetimeMs: 'never', defaultTtlMs: undefined as never });
    expect(await contents()).toMatchObject({ tables: ['_cf_KV'], alarm: null });
    await runAlarm();
    expect(await read()).toEqual({ cart: ':["x"]' });
    await remove(100);
    await expect.poll(contents).toEqual(NOTHING);
  });

  it('an expired session is not returned, even if the alarm is late', async () => {
    await patch('cart');
    const { stored } = await contents();
    await store({ ...stored, until: Date.now() - 1, alarmAt: Date.now() + HOUR });
    expect(await read()).toBeNull();
    expect(await read(`&idleMs=${HOUR}`)).toBeNull();
    expect(await patch('cart', { mustExist: true })).toBe('missing');
    expect(await remove(HOUR)).toBeNull();
  });

  it('a tombstone that has ended rejects nothing, even if the alarm is late', async () => {
    await patch('cart');
    await remove(HOUR);
    expect(await patch('hat')).toBe('destroyed');
    const { stored } = await contents();
    await store({ ...stored, until: Date.now() - 1 });
    expect(await patch('hat')).toBe('applied');
    expect(await read()).toEqual({ hat: ':["x"]' });
  });

  it('an alarm that fires early sets itself again and removes nothing', async () => {
    await patch('cart');
    const { stored } = await contents();
    await result(`/alarm?key=${key}&at=${stored!.until + HOUR}`);
    await runAlarm();
    expect((await contents()).alarm).toBe(stored!.until);
    expect(await read()).toEqual({ cart: ':["x"]' });
  });

  it('a lifetime of centuries has an alarm within a year', async () => {
    await patch('cart', { lifetimeMs: 1e15, defaultTtlMs: 1e15 });
    const { alarm } = await contents();
    expect(alarm).toBeGreaterThan(Date.now() + 300 * 24 * HOUR);
    expect(alarm).toBeLessThan(Date.now() + 366 * 24 * HOUR);
  });

  it('a write after the end gets an alarm of its own', async () => {
    await patch('cart');
    const { stored } = await contents();
    await store({ ...stored, until: Date.now() - 1, alarmAt: Date.now() - 1 });
    await patch('hat');
    const { alarm, stored: now } = await contents();
    expect(alarm).toBe(now!.until);
  });

  it('its alarm removes everything also with an old compatibility date', async () => {
    await using own = await startObjects('sessions.ts', { compatibilityDate: '2024-10-14' });
    const at = own.all[0]!;
    const now = Date.now();
    const change = { set: new Map([['cart', ':["x"]']]), unset: [], lifetimeMs: 100, defaultTtlMs: 100, now };
    expect((await ask(at, `/patch?key=${key}`, change)).body).toBe('applied');
    const left = async (): Promise<unknown> => (await ask(at, `/contents?key=${key}`)).body;
    await expect.poll(left).toEqual(NOTHING);
  });
});

describe('the alarm', () => {
  beforeEach(async () => {
    await browser(worker).go('/set?key=user&value=ada');
    await result('/counts');
  });

  it('is set by the first write, and not moved by later ones', async () => {
    const visitor = browser(worker);
    for (let write = 0; write < 10; write++) await visitor.go(`/set?key=user&value=${write}`);
    expect(await result('/counts')).toMatchObject({ put: 10, setAlarm: 1 });
  });

  it('is not moved by reads that extend the idle limit', async () => {
    const visitor = browser(worker);
    await visitor.go('/set?key=user&value=ada&driver=idle');
    for (let visit = 0; visit < 10; visit++) await visitor.go('/all?driver=idle');
    expect(await result('/counts')).toMatchObject({ put: 11, setAlarm: 1 });
  });

  it('is moved when the session ends earlier', async () => {
    await patch('cart');
    await patch('cart', { lifetimeMs: HOUR / 2, defaultTtlMs: HOUR / 2 });
    const { alarm, stored } = await contents();
    expect(alarm).toBe(stored!.until);
    expect(alarm).toBeLessThan(Date.now() + HOUR * 0.75);
  });
});

describe('the cost of an operation', () => {
  let visitor: Browser;
  beforeEach(async () => {
    visitor = browser(worker);
    await visitor.go('/set?key=user&value=ada');
    await result('/counts');
  });

  it.each<[string, () => Promise<Answer>, [requests: number, read: number, written: number]]>([
    ['nothing stored', () => browser(worker).go('/all'), [0, 0, 0]],
    ['read', () => visitor.go('/all'), [1, 1, 0]],
    [
      'read with idleTtl',
      async () => {
        // The first one moves the alarm.
        await visitor.go('/all?driver=idle');
        await result('/counts');
        return visitor.go('/all?driver=idle');
      },
      [1, 1, 1],
    ],
    ['write', () => visitor.go('/set?key=cart&value=hat'), [1, 1, 1]],
    ['first write', () => browser(worker).go('/set?key=cart&value=hat'), [1, 1, 2]],
    ['sign in', () => visitor.go('/regenerate'), [3, 3, 4]],
    ['sign out', () => visitor.go('/destroy'), [1, 1, 2]],
    ['the same value after a read', () => visitor.go('/look-and-set?key=user&value=ada'), [1, 1, 0]],
  ])('%s', async (_, act, expected) => {
    await act();
    const { requests, get, put, setAlarm } = (await result('/counts')) as Record<string, number>;
    // Each `setAlarm` is billed as a row written.
    expect([requests, get, put! + setAlarm!]).toEqual(expected);
  });
});

describe('what a newer version stored, or what is corrupt', () => {
  const wrong: [string, unknown][] = [
    ['a newer version', { version: 2, record: '1  \n', until: Infinity, alarmAt: Infinity }],
    ['another form', 'what is this'],
    ['no end', { version: 1, record: '1  \n', alarmAt: Infinity }],
    ['a corrupt record', { version: 1, record: '1  8 8\nshort', until: Infinity, alarmAt: Infinity }],
    ['a record of a newer version', { version: 1, record: '2  \n', until: Infinity, alarmAt: Infinity }],
  ];

  it.each(wrong)('is an error and no missing session, and can be destroyed: %s', async (_, value) => {
    await store(value);
    for (const failed of [await ask(worker, `/read?key=${key}`), await patch('cart')]) {
      const body = 'status' in (failed as object) ? (failed as Answer).body : failed;
      expect(body).toMatchObject({ code: 'refused', message: expect.stringContaining('corrupt, or a newer version') });
    }
    expect(await remove(100)).toBeNull();
    await expect.poll(contents).toEqual(NOTHING);
  });

  it('is not removed by an alarm, which looks again later', async () => {
    await store('what is this');
    await runAlarm();
    const { stored, alarm } = await contents();
    expect(stored).toBe('what is this');
    expect(alarm).toBeGreaterThan(Date.now() + 23 * HOUR);
  });

  it('a request of another version is refused', async () => {
    for (const request of [{ version: 2, operation: 'read' }, null, 'read']) {
      const { status, error } = await ask(worker, `/operate?key=${key}`, request);
      expect([status, error.message]).toEqual([500, 'The request is of another version.']);
    }
    const unknown = await ask(worker, `/operate?key=${key}`, { version: 1, operation: 'merge' });
    expect(unknown.error.message).toBe('The request is of another version.');
    expect(await contents()).toEqual(NOTHING);
  });
});

describe('a session that is too large', () => {
  it.each([
    ['ASCII', 'x', 1_990_000, 2_000_000],
    ['any other text', 'é…', 490_000, 500_000],
  ])('is refused, and the old one is kept: %s', async (_, text, fits, tooLarge) => {
    const visitor = browser(worker);
    expect((await visitor.go(`/set?key=file&text=${encodeURIComponent(text)}&size=${fits}`)).body).toBe('ok');
    const { status, error } = await visitor.go(`/set?key=file&text=${encodeURIComponent(text)}&size=${tooLarge}`);
    expect(status).toBe(500);
    expect(error).toMatchObject({ code: 'invalid-data', message: expect.stringContaining('2 MB') });
    expect((await visitor.session())['file']).toBe(text.repeat(fits));
  });

  it('is refused also if it cannot even be sent', async () => {
    const { status, error } = await browser(worker).go(`/set?key=file&size=${33 * 2 ** 20}`);
    expect([status, error.code]).toEqual([500, 'invalid-data']);
  });
});
