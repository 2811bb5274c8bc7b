import type { SessionDriver } from '@coatcheck/session-core';
import { testDriver, testStore } from '@coatcheck/session-core/testing';
import libsql from '@coatcheck/session-libsql/runtime';
import { createDatabase } from 'db0';
import libsqlHttp from 'db0/connectors/libsql/http';
import db0Driver from 'unstorage/drivers/db0';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { openStore } from '../src/store.ts';
import { startSqld, type Sqld } from './support/sqld.ts';

let server: Sqld;
beforeAll(async () => {
  server = await startSqld();
});
afterAll(() => server?.[Symbol.asyncDispose]());

const target = () => ({ url: server.url, authToken: server.authToken });

describe('the store', () => {
  testStore({
    it,
    createStore: () => openStore(target(), { env: () => undefined, timeoutMs: 30_000 }),
    async timeLeft(key) {
      const [row] = await server.query(
        `SELECT until - unixepoch('subsec') * 1000 AS left, until FROM coatcheck_sessions WHERE key = ?`,
        key,
      );
      if (!row || Number(row['left']) <= 0) return null;
      return row['until'] === 8.64e15 ? 'never' : Number(row['left']);
    },
  });
});

describe('the driver', () => {
  testDriver({
    it,
    createDriver: (config) => libsql({ ...config, ...target() }),
    dump: async () => JSON.stringify(await server.query('SELECT * FROM coatcheck_sessions')),
    legacyDriver: () => db0Driver({ database: createDatabase(libsqlHttp(target())) }) as SessionDriver,
  });
});
