import { testStore } from '@coatcheck/session-core/testing';
import { it } from 'vitest';
import { openStore } from '../src/store.ts';
import { newBouncedDatabase, sql } from './support/store.ts';

// The conformance suite again, through PgBouncer in transaction mode. Only in `pnpm test:all`.

const { direct, url } = await newBouncedDatabase();

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
