import { testStore } from '@coatcheck/session-core/testing';
import { startPgBouncer, type PgBouncer } from '@coatcheck/test-support/pgbouncer';
import { sharedPostgres } from '@coatcheck/test-support/postgres-server';
import { afterAll, beforeAll, it } from 'vitest';
import { openStore } from '../src/store.ts';
import { newDatabase, sql } from './support/store.ts';

// The conformance suite again, through PgBouncer in transaction mode. Only in `pnpm test:all`.

let direct: string;
let url: string;
let bouncer: PgBouncer;
beforeAll(async () => {
  bouncer = await startPgBouncer((await sharedPostgres()).port);
  direct = await newDatabase();
  url = direct.replace(/:\d+\//, `:${bouncer.port}/`);
});
afterAll(() => bouncer[Symbol.asyncDispose]());

testStore({
  it,
  createStore: () => openStore({ url, maxConnections: 20 }, { env: () => undefined, timeoutMs: 30_000 }),
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
