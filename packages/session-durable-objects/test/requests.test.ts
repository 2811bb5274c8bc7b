import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ask, browser, type Answer } from './support/browser.ts';
import { startObjects, type Isolate } from './support/objects.ts';

// Sessions in workerd, in two isolates that use the same objects, and what happens when an object fails.

let isolates: Awaited<ReturnType<typeof startObjects>>;
let one: Isolate;
let other: Isolate;
beforeAll(async () => {
  isolates = await startObjects('sessions.ts', { isolates: 2 });
  [one, other] = isolates.all as [Isolate, Isolate];
}, 60_000);
afterAll(() => isolates?.[Symbol.asyncDispose]());

/** What happens to the next calls of objects: see `test/workers/sessions.ts`. */
const fault = (how: object): Promise<Answer> => ask(one, '/fault', { times: 1, ...how });
const counts = async (): Promise<Record<string, number>> => (await ask(one, '/counts')).body as Record<string, number>;
beforeEach(() => fault({ times: 0 }));

const ok = (count: number): string[] => Array.from({ length: count }, () => 'ok');

describe('in two isolates', () => {
  it('64 concurrent writers lose no updates, ten times in a row', async () => {
    for (let round = 0; round < 10; round++) {
      const visitor = browser(one);
      await visitor.go('/set?key=user&value=ada');
      const answers = await Promise.all(
        Array.from({ length: 64 }, (_, index) =>
          visitor.fork(index % 2 ? one : other).go(`/look-and-set?key=key${index}&value=1&driver=plain`),
        ),
      );
      expect(answers.map(({ body }) => body)).toEqual(ok(64));
      expect(Object.keys(await visitor.session())).toHaveLength(65);
    }
  });

  it('concurrent increments with `update` are all counted', async () => {
    const visitor = browser(one);
    await visitor.go('/count');
    const answers = await Promise.all(
      Array.from({ length: 16 }, (_, index) => visitor.fork(index % 2 ? one : other).go('/count')),
    );
    expect(answers.map(({ body }) => body)).toEqual(ok(16));
    expect(await visitor.session()).toEqual({ count: 17 });
  });

  it('a session that is destroyed while others write to it stays destroyed', async () => {
    for (let round = 0; round < 10; round++) {
      const visitor = browser(one);
      await visitor.go('/set?key=user&value=ada');
      const late = visitor.fork();
      const writing = Array.from({ length: 8 }, (_, index) =>
        visitor.fork(index % 2 ? one : other).go(`/look-and-set?key=key${index}&value=1`),
      );
      await visitor.go('/destroy');
      await Promise.all(writing);
      for (const isolate of isolates.all) expect(await late.fork(isolate).session()).toEqual({});
    }
  });

  it('changes survive an object that is evicted from memory while they are written', async () => {
    const visitor = browser(one);
    await visitor.go('/set?key=user&value=ada');
    const acknowledged: string[] = [];
    for (let round = 0; round < 8; round++) {
      const writing = Array.from({ length: 8 }, async (_, index) => {
        const key = `key${round}-${index}`;
        const { status, error } = await visitor.fork(index % 2 ? one : other).go(`/set?key=${key}&value=1`);
        if (status === 200) acknowledged.push(key);
        else expect(error.code).toBe('interrupted');
      });
      await ask(one, '/evict');
      await Promise.all(writing);
    }
    expect(acknowledged.length).toBeGreaterThan(0);
    expect(Object.keys(await visitor.session())).toEqual(expect.arrayContaining(['user', ...acknowledged]));
  });
});

it('`check` works', async () => {
  expect((await ask(one, '/check')).body).toMatchObject({ ok: true, driver: 'session-durable-objects' });
});

it('`locationHint` is sent with each call', async () => {
  await browser(one).go('/set?key=user&value=ada');
  expect(await counts()).toMatchObject({ options: { locationHint: 'weur' } });
});

describe('when an object fails', () => {
  const lost = { message: 'Network connection lost.', retryable: true, remote: false };
  const visit = async () => {
    const visitor = browser(one);
    await visitor.go('/set?key=user&value=ada');
    await counts();
    return visitor;
  };

  it('a read is sent again if Cloudflare says `retryable`', async () => {
    const visitor = await visit();
    await fault({ throws: lost, times: 2 });
    expect(await visitor.session()).toEqual({ user: 'ada' });
    expect(await counts()).toMatchObject({ requests: 3 });
  });

  it('a read that keeps failing is an error and no missing session', async () => {
    const visitor = await visit();
    await fault({ throws: lost, times: Infinity });
    const message = expect.stringContaining('the connection to it broke. The read was sent again');
    expect(await visitor.go('/all')).toMatchObject({
      status: 500,
      body: { code: 'interrupted', message, cause: lost.message },
    });
    await fault({ times: 0 });
    expect(await visitor.session()).toEqual({ user: 'ada' });
  });

  it.each([true, false])('a write is not sent again, and its outcome is unknown (executed: %s)', async (executed) => {
    const visitor = await visit();
    await fault({ throws: lost, executed });
    const { status, error } = await visitor.go('/set?key=cart&value=hat');
    expect([status, error.code, error.cause]).toEqual([500, 'interrupted', lost.message]);
    expect(await counts()).toMatchObject({ requests: 1 });
    expect(Object.keys(await visitor.session())).toEqual(executed ? ['user', 'cart'] : ['user']);
  });

  it('the failure of one object does not affect the sessions in other objects', async () => {
    const visitor = await visit();
    const neighbor = await visit();
    await fault({ throws: lost });
    expect((await visitor.go('/set?key=cart&value=hat')).status).toBe(500);
    expect(await neighbor.session()).toEqual({ user: 'ada' });
  });

  it.each([
    ['refused', 'more requests than it can handle', { message: 'Durable Object is overloaded.', overloaded: true }],
    ['refused', 'ends at midnight UTC', { message: 'Exceeded allowed rows written in Durable Objects free tier.' }],
    ['configuration', 'class of the binding', { message: 'The RPC receiver does not implement the method "operate".' }],
  ])('an error says what to do: %s, %s', async (code, advice, throws) => {
    const visitor = await visit();
    for (const path of ['/all', '/set?key=cart&value=hat']) {
      await fault({ throws: { ...throws, retryable: true } });
      const { body } = await visitor.go(path);
      expect(body).toMatchObject({ code, message: expect.stringContaining(advice), cause: throws.message });
      expect(await counts()).toMatchObject({ requests: 1 });
    }
  });

  it('an object that does not answer causes an error at the deadline', async () => {
    const visitor = await visit();
    for (const path of ['/all', '/set?key=cart&value=hat']) {
      await fault({ hangs: true });
      const { status, error } = await visitor.go(path);
      expect([status, error.code]).toEqual([500, 'timeout']);
      await expect.poll(() => visitor.session()).toEqual({ user: 'ada' });
    }
  });

  it.each([[undefined], [{ fields: {} }], ['later'], [{ version: 2, result: null }]])(
    'an answer of a newer version is an error and no missing session: %j',
    async (answers) => {
      const visitor = await visit();
      await fault({ answers });
      const { status, error } = await visitor.go('/all');
      expect([status, error.code]).toEqual([500, 'refused']);
      expect(error.message).toContain('different versions');
    },
  );
});

it('a class without SQLite is an error that says what to do', async () => {
  await using own = await startObjects('sessions.ts', { useSQLite: false });
  for (const path of ['/all', '/set?key=cart&value=hat']) {
    const { error } = await browser(own.all[0]!, `astro-session=${crypto.randomUUID()}`).go(path);
    expect(error).toMatchObject({ code: 'configuration', message: expect.stringContaining('`new_sqlite_classes`') });
  }
});
