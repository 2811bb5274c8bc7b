import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import type { SessionDriver } from '@coatcheck/session-core/driver';
import { testDriver, testStore } from '@coatcheck/session-core/testing';
import sqlite from '@coatcheck/session-sqlite/runtime';
import { withFakeClock } from '@coatcheck/test-support/clock';
import { createDatabase } from 'db0';
import nodeSqlite from 'db0/connectors/node-sqlite';
import db0Driver from 'unstorage/drivers/db0';
import fsLite from 'unstorage/drivers/fs-lite';
import { afterAll, describe, it } from 'vitest';
import { openStore } from '../src/store.ts';

const directory = mkdtempSync(join(tmpdir(), 'coatcheck-sqlite-'));
const file = join(directory, 'sessions.db');
afterAll(() => rmSync(directory, { recursive: true }));

describe('the store', () => {
  testStore({
    it,
    createStore: () => openStore({ file }, { timeoutMs: 5000 }),
    ...withFakeClock(),
  });
});

const base = join(directory, 'legacy');

describe.each([
  ['a database', {}, () => db0Driver({ database: createDatabase(nodeSqlite({ path: file })) })],
  ['files', { base }, () => fsLite({ base })],
])('the driver, with legacy sessions in %s', (_place, place, legacyDriver) => {
  testDriver({
    it,
    createDriver: ({ migrateFrom, ...config }) =>
      sqlite({ ...config, ...(migrateFrom && { migrateFrom: { ...place, ...migrateFrom } }), file }),
    // Not the bytes of the file: SQLite leaves in it what another driver has deleted.
    dump: async () => JSON.stringify(new DatabaseSync(file).prepare('SELECT * FROM coatcheck_sessions').all()),
    legacyDriver: () => legacyDriver() as SessionDriver,
  });
});
