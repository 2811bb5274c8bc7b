import { call, change, newKey } from '@coatcheck/test-support/stores';
import { expect, it } from 'vitest';
import { newBouncedDatabase, openClient, openStore } from './support/store.ts';

// Through PgBouncer in transaction mode: each statement may be sent to another connection of PostgreSQL.

const { direct, url } = await newBouncedDatabase();

it('64 concurrent writers on two stores lose no updates, and a destroyed session stays destroyed', async () => {
  const stores = [await openStore({ url }), await openStore({ url })] as const;
  const key = newKey();
  const names = Array.from({ length: 64 }, (_, index) => `field${index}`);
  const write = (name: string, index: number) =>
    stores[index % 2 ? 1 : 0].patch(key, change({ set: new Map([[name, ':1']]) }), call());
  expect(new Set(await Promise.all(names.map(write)))).toEqual(new Set(['applied']));
  const contents = new Map(names.map((name) => [name, ':1']));
  expect(await stores[0].read(key, { ...call(), extendIdleMs: 60_000 })).toEqual(contents);
  expect(await stores[1].destroy(key, 60_000, call())).toEqual(contents);
  expect(await write('late', 0)).toBe('destroyed');
});

it('a statement is canceled at its deadline, and not stored later', async () => {
  const store = await openStore({ url }, 600_000);
  const key = newKey();
  await store.patch(key, change({ set: new Map([['a', ':1']]) }), call());
  const blocker = await openClient(direct);
  await blocker.query(`BEGIN; SELECT FROM coatcheck_sessions WHERE key = '${key}' FOR UPDATE`);
  const write = store.patch(key, change({ set: new Map([['a', ':2']]) }), call(300));
  await expect(write).rejects.toMatchObject({
    code: 'refused',
    message: expect.stringMatching(/canceled the statement/),
  });
  await blocker.query('COMMIT');
  expect(await store.read(key, call())).toEqual(new Map([['a', ':1']]));
});

it('a setting that PgBouncer does not take is an error that names it', async () => {
  const store = await openStore({ url: `${url}?statement_timeout=1000` }, 500);
  await expect(store.read(newKey(), call())).rejects.toMatchObject({
    code: 'unavailable',
    message: expect.stringMatching(/unsupported startup parameter: statement_timeout/),
  });
});
