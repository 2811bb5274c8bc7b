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

describe('the driver', () => {
  testDriver({
    it,
    createDriver: (config) => sqlite({ ...config, file }),
    // Not the bytes of the file: SQLite leaves in it what another driver has deleted.
    dump: async () => JSON.stringify(new DatabaseSync(file).prepare('SELECT * FROM coatcheck_sessions').all()),
    legacyDriver: () => db0Driver({ database: createDatabase(nodeSqlite({ path: file })) }) as SessionDriver,
  });
});
