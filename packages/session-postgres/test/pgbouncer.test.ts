import { testStore } from '@coatcheck/session-core/testing';
import { startPgBouncer, type PgBouncer } from '@coatcheck/test-support/pgbouncer';
import { sharedPostgres } from '@coatcheck/test-support/postgres-server';
import { call, change, newKey } from '@coatcheck/test-support/stores';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openStore as open } from '../src/store.ts';
import { newDatabase, openClient, openStore, sql } from './support/store.ts';

// Through PgBouncer in transaction mode: each statement may be sent to another connection of PostgreSQL.

let direct: string;
let url: string;
let bouncer: PgBouncer;
beforeAll(async () => {
  bouncer = await startPgBouncer((await sharedPostgres()).port);
  direct = await newDatabase();
  url = direct.replace(/:\d+\//, `:${bouncer.port}/`);
});
afterAll(() => bouncer[Symbol.asyncDispose]());

describe('the store', () => {
  testStore({
    it,
    createStore: () => open({ url, maxConnections: 20 }, { env: () => undefined, timeoutMs: 30_000 }),
    async timeLeft(key) {
      const [row] = await sql(
        direct,
        'SELECT (until - extract(epoch FROM clock_timestamp()) * 1000)::float AS left, until FROM coatcheck_sessions WHERE key = $1',
        [key],
      );
      if (!row || (row['left'] as number) <= 0) return null;
      return Number(row['until']) === 8.64e15 ? 'never' : (row['left'] as number);
    },
  });
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
