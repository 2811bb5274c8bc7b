import { startIsolates, type Isolate, type Isolates } from '@coatcheck/test-support/isolates';
import { afterAll, beforeAll, expect, it } from 'vitest';

// Two Workers, each with an isolate of its own, on one D1 database.

let isolates: Isolates;
beforeAll(async () => {
  isolates = await startIsolates(new URL('workers/requests.ts', import.meta.url), 2, {
    d1Databases: { DB: 'sessions' },
  });
}, 60_000);
afterAll(() => isolates?.[Symbol.asyncDispose]());

const isolate = (index: number): Isolate => isolates.all[index % 2]!;

async function go(index: number, path: string, cookie: string): Promise<unknown> {
  const { status, text } = await isolate(index).fetch(path, { headers: { cookie } });
  expect({ status, text }).toEqual({ status: 200, text });
  return JSON.parse(text);
}

async function signIn(): Promise<string> {
  const { headers } = await isolate(0).fetch('/set?key=user');
  return headers.getSetCookie()[0]!.split(';')[0]!;
}

const times = <Result>(count: number, act: (index: number) => Promise<Result>): Promise<Result[]> =>
  Promise.all(Array.from({ length: count }, (_, index) => act(index)));

it('64 concurrent writers in two isolates lose no updates, and no increments of one number', async () => {
  // The table does not exist yet. All of them find that out.
  const cookie = await signIn();
  await times(64, (index) => go(index, `/set?key=key${index}`, cookie));
  const stored = (await go(0, '/all', cookie)) as Record<string, unknown>;
  expect(Object.keys(stored).sort()).toEqual(['user', ...Array.from({ length: 64 }, (_, i) => `key${i}`)].sort());

  await times(16, (index) => go(index, '/count', cookie));
  expect(await go(1, '/all', cookie)).toMatchObject({ count: 16 });
});

it('a session that is destroyed while two isolates write to it stays destroyed', async () => {
  for (let round = 0; round < 10; round++) {
    const cookie = await signIn();
    const writing = times(8, (index) => go(index, `/set?key=key${index}`, cookie));
    await go(round, '/destroy', cookie);
    await writing;
    expect(await times(2, (index) => go(index, '/all', cookie))).toEqual([{}, {}]);
  }
});
