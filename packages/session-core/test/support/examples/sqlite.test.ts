import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { testDriver } from '@coatcheck/session-core/testing';
import { afterAll, describe, it } from 'vitest';
import sqlite from './sqlite.ts';

const folder = mkdtempSync(join(tmpdir(), 'session-sqlite-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe('the driver', () => {
  testDriver({ it, createDriver: (config) => sqlite({ file: join(folder, 'sessions.db'), ...config }) });
});
