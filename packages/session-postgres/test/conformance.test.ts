import { testDriver, testStore } from '@coatcheck/session-core/testing';
import postgres from '@coatcheck/session-postgres/runtime';
import { sharedPostgres } from '@coatcheck/test-support/postgres-server';
import { beforeAll, describe, it } from 'vitest';
import type { SessionDriver } from '@coatcheck/session-core';
import { createDatabase } from 'db0';
import postgresql from 'db0/connectors/postgresql';
import db0Driver from 'unstorage/drivers/db0';
import { openStore } from '../src/store.ts';

let url: string;
beforeAll(async () => {
  url = await (await sharedPostgres()).createDatabase();
});

describe('the store', () => {
  testStore({
    it,
    createStore: () => openStore({ url }, { env: () => undefined, timeoutMs: 30_000 }),
    async timeLeft(key) {
      const server = await sharedPostgres();
      const [row] = await server.query(
        `SELECT (until - extract(epoch FROM clock_timestamp()) * 1000)::float AS left, until FROM coatcheck_sessions WHERE key = $1`,
        [key],
        url,
      );
      if (!row || (row.left as number) <= 0) return null;
      return Number(row.until) === 8.64e15 ? 'never' : (row.left as number);
    },
  });
});

describe('the driver', () => {
  testDriver({
    it,
    createDriver: (config) => postgres({ ...config, url }),
    dump: async () => JSON.stringify(await (await sharedPostgres()).query('SELECT * FROM coatcheck_sessions', [], url)),
    legacyDriver: () => db0Driver({ database: createDatabase(postgresql({ url })) }) as SessionDriver,
  });
});
