import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { testDriver, testStore } from '@coatcheck/session-core/testing';
import { afterAll, afterEach, beforeEach, describe, it, vi } from 'vitest';
import sqlite, { openStore } from './runtime.ts';

const folder = mkdtempSync(join(tmpdir(), 'session-sqlite-'));
const file = join(folder, 'sessions.db');
afterAll(() => rmSync(folder, { recursive: true }));

describe('the store', () => {
  // A fake clock that only the suite advances.
  beforeEach(() => void vi.useFakeTimers({ toFake: ['Date'] }));
  afterEach(() => void vi.useRealTimers());
  testStore({ it, createStore: () => openStore(file), passTime: (ms) => vi.advanceTimersByTime(ms) });
});

describe('the driver', () => {
  testDriver({ it, createDriver: (config) => sqlite({ file, ...config }) });
});
