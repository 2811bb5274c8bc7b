import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { SessionDriver } from '@coatcheck/session-core';
import { testDriver, testStore } from '@coatcheck/session-core/testing';
import libsql from '@coatcheck/session-libsql/runtime';
import { createClient, type Client } from '@libsql/client';
import { createDatabase } from 'db0';
import libsqlHttp from 'db0/connectors/libsql/http';
import libsqlNode from 'db0/connectors/libsql/node';
import db0Driver from 'unstorage/drivers/db0';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { openStore } from '../src/store.ts';
import { startSqld, type Sqld } from './support/sqld.ts';

let server: Sqld;
let file: Client;
const folder = mkdtempSync(join(tmpdir(), 'coatcheck-libsql-'));
const fileUrl = pathToFileURL(join(folder, 'sessions.db')).href;
beforeAll(async () => {
  server = await startSqld();
  file = createClient({ url: fileUrl });
});
afterAll(async () => {
  file?.close();
  rmSync(folder, { recursive: true });
  await server?.[Symbol.asyncDispose]();
});

describe.each([
  {
    where: 'on a server',
    target: () => ({ url: server.url, authToken: server.authToken }),
    query: (sql: string, ...args: string[]) => server.query(sql, ...args),
    legacy: () => libsqlHttp({ url: server.url, authToken: server.authToken }),
  },
  {
    where: 'in a file',
    target: () => ({ url: fileUrl }),
    query: async (sql: string, ...args: string[]) => (await file.execute({ sql, args })).rows,
    legacy: () => libsqlNode({ url: fileUrl }),
  },
])('$where', ({ target, query, legacy }) => {
  describe('the store', () => {
    testStore({
      it,
      createStore: () => openStore(target(), { env: () => undefined, timeoutMs: 30_000 }),
      async timeLeft(key) {
        const [row] = await query(
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
      dump: async () => JSON.stringify(await query('SELECT * FROM coatcheck_sessions')),
      legacyDriver: () => db0Driver({ database: createDatabase(legacy()) }) as SessionDriver,
    });
  });
});
