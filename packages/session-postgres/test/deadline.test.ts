import type { DriverStore } from '@coatcheck/session-core/driver';
import postgres from '@coatcheck/session-postgres/runtime';
import { createSessions } from '@coatcheck/session-core';
import { startProxy } from '@coatcheck/test-support/fault-proxy';
import { call, change, newKey } from '@coatcheck/test-support/stores';
import { Pool, type Client } from 'pg';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { newDatabase, openClient, openStore, sql } from './support/store.ts';

// Another transaction holds a lock for longer than an operation may take.

/** A deadline that must pass. */
const SHORT_MS = 300;

const LOCKS: [what: string, statement: (key: string) => string][] = [
  ['the lock of the key', (key) => `SELECT pg_advisory_xact_lock(hashtextextended('${key}', 0))`],
  ['the row', (key) => `SELECT FROM coatcheck_sessions WHERE key = '${key}' FOR UPDATE`],
  ['the table', () => 'LOCK TABLE coatcheck_sessions IN ACCESS EXCLUSIVE MODE'],
];

let url: string;
let blocker: Client;
let direct: DriverStore;
let key: string;

beforeEach(async () => {
  url = await newDatabase();
  blocker = await openClient(url);
  direct = await openStore({ url });
  key = newKey();
  await direct.patch(key, change({ set: new Map([['a', ':1']]) }), call());
});

const lock = (statement: (key: string) => string) => blocker.query(`BEGIN; ${statement(key)}`);

/** The statements of the driver that the server is working on. */
async function activeStatements(): Promise<unknown[]> {
  const rows = await sql(
    url,
    `SELECT query FROM pg_stat_activity WHERE state = 'active' AND datname = current_database() AND pid <> pg_backend_pid()`,
  );
  return rows.map(({ query }) => query);
}

const write = (store: DriverStore, ms: number) => store.patch(key, change({ set: new Map([['a', ':2']]) }), call(ms));

describe.each(LOCKS)('while another transaction holds %s', (_what, statement) => {
  it('a write is canceled on the server at its deadline, and not stored later', async () => {
    // So that only the request to cancel can end it.
    const store = await openStore({ url }, 600_000);
    await store.read(key, call());
    await lock(statement);
    await expect(write(store, SHORT_MS)).rejects.toMatchObject({
      code: 'refused',
      message: expect.stringMatching(/canceled the statement/),
    });
    await expect.poll(activeStatements).toEqual([]);
    await blocker.query('COMMIT');
    expect(await store.read(key, call())).toEqual(new Map([['a', ':1']]));
  });

  it('so is a removal', async () => {
    const store = await openStore({ url }, 600_000);
    await lock(statement);
    await expect(store.destroy(key, 60_000, call(SHORT_MS))).rejects.toMatchObject({ code: 'refused' });
    await expect.poll(activeStatements).toEqual([]);
    await blocker.query('COMMIT');
    expect(await store.read(key, call())).toEqual(new Map([['a', ':1']]));
  });

  it('a write with a client of the app is not stored later, although nobody cancels it', async () => {
    const client = new Pool({ connectionString: url });
    onTestFinished(() => client.end());
    const store = await openStore({ client }, SHORT_MS);
    await lock(statement);
    const writing = Promise.allSettled([write(store, SHORT_MS), store.destroy(key, 60_000, call(SHORT_MS))]);
    await expect.poll(activeStatements).toHaveLength(2);
    await blocker.query('SELECT pg_sleep($1)', [(2 * SHORT_MS) / 1000]);
    await blocker.query('COMMIT');
    for (const result of await writing) {
      expect(result).toMatchObject({ status: 'rejected', reason: { code: 'refused' } });
    }
    expect(await direct.read(key, call())).toEqual(new Map([['a', ':1']]));
  });
});

it('a visitor gets the error of the deadline, and others keep their connections', async () => {
  const proxy = await startProxy({ target: Number(new URL(url).port) });
  onTestFinished(() => proxy[Symbol.asyncDispose]());
  const driver = postgres({ url: url.replace(/:\d+\//, `:${proxy.port}/`), timeout: 1000, maxConnections: 2 });
  const sessions = createSessions({ driver });
  const visit = async (cookie: string) => {
    const session = sessions.open(cookie);
    session.set('a', 1);
    return (await session.commit())?.split(';')[0] ?? cookie;
  };
  const cookie = await visit('');
  await lock(() => `SELECT FROM coatcheck_sessions FOR UPDATE`);
  await expect(visit(cookie)).rejects.toMatchObject({ code: 'timeout', operation: 'patch' });
  await expect.poll(activeStatements).toEqual([]);
  await blocker.query('COMMIT');
  await visit(cookie);
  // The statements, the request to cancel, and the connection in place of the one that was given up.
  expect(proxy.connections).toBeLessThanOrEqual(4);
});

it('when all connections are busy, the error says so', async () => {
  const store = await openStore({ url, maxConnections: 1 }, 600_000);
  await lock(LOCKS[0]![1]);
  const waiting = write(store, 60_000);
  await expect.poll(activeStatements).toHaveLength(1);
  await expect(store.read(key, call(SHORT_MS))).rejects.toMatchObject({
    code: 'unavailable',
    message: expect.stringMatching(
      /All 1 connections to PostgreSQL are busy \(`maxConnections`\)\. Nothing was sent\./,
    ),
  });
  await blocker.query('COMMIT');
  expect(await waiting).toBe('applied');
  expect(await store.read(key, call())).toEqual(new Map([['a', ':2']]));
});

it('`lock_timeout` is an error that names it, and a write that it ended is not stored', async () => {
  const store = await openStore({ url: `${url}?lock_timeout=100` });
  await lock(LOCKS[2]![1]);
  await expect(write(store, 60_000)).rejects.toMatchObject({
    code: 'refused',
    message: expect.stringMatching(/lock_timeout/),
  });
  await blocker.query('COMMIT');
  expect(await store.read(key, call())).toEqual(new Map([['a', ':1']]));
});

it('when PostgreSQL does not answer, its connections are replaced', async () => {
  const proxy = await startProxy({ target: Number(new URL(url).port) });
  onTestFinished(() => proxy[Symbol.asyncDispose]());
  const store = await openStore({ url: url.replace(/:\d+\//, `:${proxy.port}/`) });
  const reads = () => Promise.all([1, 2, 3].map(() => store.read(key, call())));
  await reads();
  const before = proxy.connections;
  await proxy.hold();
  await expect(write(store, SHORT_MS)).rejects.toBeDefined();
  await proxy.pass();
  await reads();
  expect(proxy.connections).toBeGreaterThanOrEqual(before + 3);
});
