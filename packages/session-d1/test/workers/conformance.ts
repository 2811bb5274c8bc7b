import type { D1Database } from '@cloudflare/workers-types';
import type { SessionDriver } from '@coatcheck/session-core';
import { testDriver, testStore } from '@coatcheck/session-core/testing';
import d1 from '@coatcheck/session-d1/runtime';
import { createDatabase } from 'db0';
import cloudflareD1 from 'db0/connectors/cloudflare-d1';
import db0Driver from 'unstorage/drivers/db0';
import { d1Store } from '../../src/store.ts';

async function timeLeft(database: D1Database, key: string): Promise<number | 'never' | null> {
  const row = await database
    .prepare(`SELECT until - unixepoch('subsec') * 1000 AS left, until FROM coatcheck_sessions WHERE key = ?`)
    .bind(key)
    .first<{ left: number; until: number }>();
  if (!row || row.left <= 0) return null;
  return row.until === 8.64e15 ? 'never' : row.left;
}

// Runs the conformance suite in the runtime of the driver. One request runs one test.
export default {
  async fetch(request: Request, { DB }: { DB: D1Database }): Promise<Response> {
    const name = new URL(request.url).searchParams.get('name')!;
    const tests = new Map<string, () => Promise<void>>();
    const it = (title: string, run: () => Promise<void>) => tests.set(title, run);
    testStore({
      it,
      createStore: () => d1Store(DB, {}, 30_000),
      timeLeft: (key) => timeLeft(DB, key),
    });
    testDriver({
      it,
      createDriver: (config) => d1(config),
      dump: async () => JSON.stringify((await DB.prepare('SELECT * FROM coatcheck_sessions').all()).results),
      legacyDriver: () => db0Driver({ database: createDatabase(cloudflareD1({ bindingName: 'DB' })) }) as SessionDriver,
    });
    try {
      await tests.get(name)!();
      return new Response('passed');
    } catch (error) {
      return new Response((error as Error).stack, { status: 500 });
    }
  },
};
