import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { valueStore } from '@coatcheck/session-core';
import { testDriver, testStore } from '@coatcheck/session-core/testing';
import fs from '@coatcheck/session-fs/runtime';
import { afterAll, describe, it } from 'vitest';
import { openFiles } from '../src/files.ts';

const directory = mkdtempSync(join(tmpdir(), 'coatcheck-fs-'));
afterAll(() => rmSync(directory, { recursive: true }));

describe('the store', () => {
  testStore({ it, createStore: async () => valueStore(await openFiles(directory, 5000)), slackMs: 200 });
});

describe('the driver', () => {
  testDriver({ it, createDriver: (config) => fs({ ...config, directory }) });
});
