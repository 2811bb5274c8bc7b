import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { valueStore, type SessionDriver } from '@coatcheck/session-core/driver';
import { testDriver, testStore } from '@coatcheck/session-core/testing';
import fs from '@coatcheck/session-fs/runtime';
import fsLite from 'unstorage/drivers/fs-lite';
import { afterAll, describe, it } from 'vitest';
import { withFakeClock } from '@coatcheck/test-support/clock';
import { openFiles } from '../src/files.ts';

const directory = mkdtempSync(join(tmpdir(), 'coatcheck-fs-'));
afterAll(() => rmSync(directory, { recursive: true }));

describe('the store', () => {
  testStore({ it, createStore: async () => valueStore(await openFiles(directory, 5000)), ...withFakeClock() });
});

describe('the driver', () => {
  const legacyDirectory = join(directory, 'legacy');

  testDriver({
    it,
    createDriver: ({ migrateFrom, ...config }) =>
      fs({ ...config, ...(migrateFrom && { migrateFrom: { base: legacyDirectory, ...migrateFrom } }), directory }),
    dump: async () => {
      const files = readdirSync(directory, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
      return files
        .map(({ parentPath, name }) => `${name}\n${readFileSync(join(parentPath, name), 'latin1')}`)
        .join('\n');
    },
    legacyDriver: () => fsLite({ base: legacyDirectory }) as SessionDriver,
  });
});
