import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { startIsolates, startWorker, type Answer, type Isolate, type Isolates, type Worker } from './support/worker.ts';

// Sessions in workerd. Most tests are about a rule of Workers: an isolate serves many requests, and none may wait for the work of another
// request, or use objects that belong to it.

let worker: Worker;
beforeAll(async () => {
  worker = await startWorker('requests.ts');
}, 60_000);
afterAll(() => worker?.[Symbol.asyncDispose]());
beforeEach(() => kvIs({}));

interface Operations {
  get: number;
  put: number;
  delete: number;
}

/** Sets how KV behaves from now on. Resolves to the counts of operations since the last call. */
async function kvIs(
  how: { slowMs?: number; tooSoon?: number; failing?: string; refusing?: string },
  at: Isolate = worker,
): Promise<Operations> {
  const query = Object.entries(how).map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
  return JSON.parse((await at.fetch(`/kv?${query.join('&')}`)).text);
}

/** A browser that sends its cookie, and keeps the one it receives. */
function browser(at: Isolate = worker, cookie = '') {
  return {
    fork: (elsewhere = at) => browser(elsewhere, cookie),
    async go(path: string): Promise<Answer> {
      const answer = await at.fetch(path, { headers: { cookie } });
      const [given] = answer.headers.getSetCookie();
      if (given) cookie = /Max-Age=0/.test(given) ? '' : given.split(';')[0]!;
      return answer;
    },
    async session(): Promise<Record<string, unknown>> {
      return JSON.parse((await this.go('/all')).text);
    },
  };
}

/** A session as Astro writes it. */
const payload = (user = 'ada'): string =>
  JSON.stringify([['Map', 1, 2], 'user', { data: 3, expires: 4 }, user, Date.now() + 3_600_000]);

describe('in one isolate', () => {
  it.each([
    ['2024-10-14', []],
    ['2026-07-30', ['nodejs_compat']],
  ])(
    '64 concurrent requests lose no updates, and need few operations: %s',
    async (compatibilityDate, compatibilityFlags) => {
      await using own = await startWorker('requests.ts', { compatibilityDate, compatibilityFlags });
      const visitor = browser(own);
      await visitor.go('/set?key=user&value=ada');
      await kvIs({ slowMs: 50 }, own);
      const answers = await Promise.all(
        Array.from({ length: 64 }, (_, index) => visitor.fork().go(`/set?key=key${index}&value=1`)),
      );
      expect(answers.map(({ status, text }) => `${status} ${text}`)).toEqual(
        Array.from({ length: 64 }, () => '200 ok'),
      );
      const { put } = await kvIs({}, own);
      expect(put).toBeLessThan(10);
      console.log(`64 requests at once in one isolate: ${put} writes`);
      expect(Object.keys(await visitor.session())).toHaveLength(65);
    },
  );

  it('concurrent reads do not wait for each other', async () => {
    const visitor = browser();
    await visitor.go('/set?key=user&value=ada');
    await kvIs({ slowMs: 50 });
    const sessions = await Promise.all(Array.from({ length: 32 }, () => visitor.fork().session()));
    expect(sessions).toEqual(Array.from({ length: 32 }, () => ({ user: 'ada' })));
  });

  it('concurrent increments with `update` are all counted', async () => {
    const visitor = browser();
    await visitor.go('/set?key=count&value=');
    await visitor.go('/regenerate');
    await kvIs({ slowMs: 5 });
    const fresh = browser();
    await fresh.go('/count');
    const answers = await Promise.all(Array.from({ length: 8 }, () => fresh.fork().go('/count')));
    expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 8 }, () => 200));
    expect(await fresh.session()).toEqual({ count: 9 });
  });

  it('a removal is completed even if the request does not wait for it, as in Astro', async () => {
    const id = randomUUID();
    await worker.fetch(`/save?id=${id}`, { method: 'POST', body: payload('grace') });
    await kvIs({ slowMs: 50 });
    expect((await worker.fetch(`/remove?id=${id}`)).text).toBe('signed out');
    await expect.poll(async () => (await worker.fetch(`/item?id=${id}`)).text).toBe('null');
    const values = async (): Promise<string> => [...(await worker.stored()).values()].join();
    await expect.poll(values).not.toContain('grace');
  });

  // Without `nodejs_compat`, work cannot continue after the response.
  it('a request that ends during its work does not block others forever', async () => {
    await using own = await startWorker('requests.ts', { compatibilityFlags: [] });
    const [id, other] = [randomUUID(), randomUUID()];
    const save = (session: string): Promise<Answer> =>
      own.fetch(`/save?id=${session}`, { method: 'POST', body: payload() });
    await save(id);
    await kvIs({ slowMs: 50 }, own);
    await own.fetch(`/remove?id=${id}`);
    expect((await save(other)).text).toBe('saved');
    expect((await save(randomUUID())).text).toBe('saved');

    await own.fetch(`/save-and-go?id=${other}`, { method: 'POST', body: payload() });
    // The request saves, or fails at the deadline. A blocked request would never return.
    expect([200, 500]).toContain((await save(other)).status);
    await expect.poll(async () => (await save(other)).text).toBe('saved');
  });
});

describe('in two isolates, on one KV', () => {
  let isolates: Isolates;
  let one: Isolate;
  let other: Isolate;
  beforeAll(async () => {
    isolates = await startIsolates('requests.ts', 2);
    [one, other] = isolates.all as [Isolate, Isolate];
  }, 60_000);
  afterAll(() => isolates?.[Symbol.asyncDispose]());

  // KV has no compare-and-set. The test prints how many updates are lost; the README has the numbers.
  it.each([0, 20, 100])(
    'at %s ms per operation, 64 concurrent requests leave a valid session, although the last write wins',
    async (slowMs) => {
      const visitor = browser(one);
      await visitor.go('/set?key=user&value=ada');
      for (const isolate of isolates.all) await kvIs({ slowMs }, isolate);
      const answers = await Promise.all(
        Array.from({ length: 64 }, (_, index) =>
          visitor.fork(index % 2 ? one : other).go(`/look-and-set?key=key${index}&value=1`),
        ),
      );
      expect(answers.map(({ text }) => text)).toEqual(Array.from({ length: 64 }, () => 'ok'));
      for (const isolate of isolates.all) await kvIs({}, isolate);
      const { user, ...rest } = await visitor.session();
      expect(user).toBe('ada');
      expect(Object.keys(rest).length).toBeGreaterThan(0);
      console.log(`${slowMs} ms an operation: ${Object.keys(rest).length} of 64 changes kept`);
    },
  );

  it('a session that is destroyed while others write to it stays destroyed', async () => {
    for (let round = 0; round < 10; round++) {
      const visitor = browser(one);
      await visitor.go('/set?key=user&value=ada');
      for (const isolate of isolates.all) await kvIs({ slowMs: 20 }, isolate);
      const late = visitor.fork();
      const writing = Array.from({ length: 8 }, (_, index) =>
        visitor.fork(index % 2 ? one : other).go(`/look-and-set?key=key${index}&value=1`),
      );
      await visitor.go('/destroy');
      await Promise.all(writing);
      for (const isolate of isolates.all) expect(await late.fork(isolate).session()).toEqual({});
    }
  });
});

describe('the number of KV operations', () => {
  let visitor: ReturnType<typeof browser>;
  beforeEach(async () => {
    visitor = browser();
    await visitor.go('/set?key=user&value=ada');
    await kvIs({});
  });

  it.each<[string, (known: ReturnType<typeof browser>) => Promise<unknown>, Operations]>([
    ['reading', (known) => known.go('/all'), { get: 2, put: 0, delete: 0 }],
    ['writing', (known) => known.go('/set?key=cart&value=hat'), { get: 2, put: 1, delete: 0 }],
    ['a visitor without a session who stores nothing', () => browser().go('/all'), { get: 0, put: 0, delete: 0 }],
    [
      'writing the value that is stored already',
      (known) => known.go('/set?key=user&value=ada'),
      { get: 2, put: 1, delete: 0 },
    ],
    ['the same after a read', (known) => known.go('/look-and-set?key=user&value=ada'), { get: 2, put: 0, delete: 0 }],
    ['the first write', () => browser().go('/set?key=cart&value=hat'), { get: 3, put: 1, delete: 0 }],
    ['signing in', (known) => known.go('/regenerate'), { get: 6, put: 2, delete: 1 }],
    ['signing out', (known) => known.go('/destroy'), { get: 1, put: 1, delete: 1 }],
  ])('%s', async (_what, act, operations) => {
    await act(visitor);
    expect(await kvIs({})).toEqual(operations);
  });

  it('a session that a request does not change is not written', async () => {
    const id = randomUUID();
    await worker.fetch(`/save?id=${id}`, { method: 'POST', body: payload() });
    const item = (await worker.fetch(`/item?id=${id}`)).text;
    await kvIs({});
    await worker.fetch(`/save?id=${id}`, { method: 'POST', body: item });
    expect(await kvIs({})).toEqual({ get: 0, put: 0, delete: 0 });
  });
});

describe('KV in trouble', () => {
  it('causes an error at the deadline if it is too slow, and works again afterwards', async () => {
    const visitor = browser();
    await visitor.go('/set?key=user&value=ada');
    for (const path of ['/all', '/set?key=user&value=bob']) {
      // Longer than the time limit of a test.
      await kvIs({ slowMs: 600_000 });
      const { status, text } = await visitor.go(path);
      expect(status).toBe(500);
      expect(JSON.parse(text)).toMatchObject({ name: 'SessionDriverError', code: 'timeout' });
      await kvIs({});
      await expect.poll(() => visitor.session()).toEqual({ user: 'ada' });
    }
  });

  it('causes an error with its message if it fails, never a missing session', async () => {
    const visitor = browser();
    await visitor.go('/set?key=user&value=ada');
    await kvIs({ failing: '503 Service Unavailable' });
    const { status, text } = await visitor.go('/all');
    expect(status).toBe(500);
    expect(JSON.parse(text)).toMatchObject({ code: 'refused', cause: 'KV GET failed: 503 Service Unavailable' });
    await kvIs({});
    expect(await visitor.session()).toEqual({ user: 'ada' });
  });

  it('a write that KV refuses as too early is repeated', async () => {
    const visitor = browser();
    await visitor.go('/set?key=user&value=ada');
    await kvIs({ tooSoon: 1 });
    expect((await visitor.go('/set?key=cart&value=hat')).text).toBe('ok');
    expect(await kvIs({})).toMatchObject({ put: 2 });
    expect(await visitor.session()).toEqual({ user: 'ada', cart: 'hat' });
  });

  it('too many writes to one session cause an error before the deadline', async () => {
    const visitor = browser();
    await visitor.go('/set?key=user&value=ada');
    await kvIs({ tooSoon: 1000 });
    const { status, text } = await visitor.go('/set?key=cart&value=hat');
    expect(status).toBe(500);
    const { code, message, cause } = JSON.parse(text);
    // The code must not be `timeout`.
    expect(code).toBe('refused');
    expect(message).toContain('one write per second');
    expect(cause).toContain('429');
    await kvIs({});
    expect(await visitor.session()).toEqual({ user: 'ada' });
  });

  it('a write is not repeated if the daily limit is used up', async () => {
    const visitor = browser();
    await visitor.go('/set?key=user&value=ada');
    await kvIs({ refusing: '429 KV put() limit exceeded for the day.' });
    const { code, message, cause } = JSON.parse((await visitor.go('/set?key=cart&value=hat')).text);
    expect(code).toBe('refused');
    expect(message).toContain('ends at midnight UTC; a larger plan');
    expect(cause).toContain('limit exceeded for the day');
    expect(await kvIs({})).toMatchObject({ put: 1 });
  });

  it('a session of more than 25 MiB is refused, and the old one is kept', async () => {
    const visitor = browser();
    await visitor.go('/set?key=user&value=ada');
    await kvIs({});
    const { status, text } = await visitor.go(`/set?key=file&size=${13 * 2 ** 20}`);
    expect(status).toBe(500);
    const { code, message } = JSON.parse(text);
    expect(code).toBe('invalid-data');
    expect(message).toContain('25 MiB');
    expect(await kvIs({})).toMatchObject({ put: 0 });
    expect(await visitor.session()).toEqual({ user: 'ada' });
  });
});

describe('a driver', () => {
  it('accepts the binding or its name, also at the top level of a module, for the same sessions', async () => {
    const visitor = browser();
    await visitor.go('/set?key=user&value=ada');
    expect(JSON.parse((await visitor.go('/shared')).text)).toEqual({ user: 'ada' });
  });

  it('sessions that Astro wrote can be read with `createSessions`', async () => {
    const id = randomUUID();
    await worker.fetch(`/save?id=${id}`, { method: 'POST', body: payload() });
    expect(await browser(worker, `astro-session=${id}`).session()).toEqual({ user: 'ada' });
  });
});
