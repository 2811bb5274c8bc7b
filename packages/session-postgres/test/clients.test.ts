import { createSessions } from '@coatcheck/session-core';
import type { DriverStore } from '@coatcheck/session-core/driver';
import postgres, { type PostgresClient, type PostgresJsClient } from '@coatcheck/session-postgres/runtime';
import { collectGarbage } from '@coatcheck/test-support/garbage';
import { startNeonBridge, type NeonBridge } from '@coatcheck/test-support/neon-bridge';
import { sharedPostgres } from '@coatcheck/test-support/postgres-server';
import { call, change, newKey } from '@coatcheck/test-support/stores';
import { PGlite } from '@electric-sql/pglite';
import { neon, neonConfig } from '@neondatabase/serverless';
import pg from 'pg';
import postgresJs from 'postgres';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { newDatabase, openStore, sql } from './support/store.ts';

// Clients that the app has created.

let url: string;
let bridge: NeonBridge;
beforeAll(async () => {
  bridge = await startNeonBridge();
  neonConfig.fetchEndpoint = bridge.endpoint;
  url = await newDatabase();
});
afterAll(() => bridge[Symbol.asyncDispose]());

/** `neon()` wants a password in the URL. */
const neonUrl = (): string => url.replace('postgres@', 'postgres:any@');

interface App {
  client: PostgresClient | PostgresJsClient;
  /** Whether the client can still be used. Also closes it. */
  finish(): Promise<boolean>;
}

const clients: [name: string, open: () => App][] = [
  [
    'a Pool of pg',
    () => {
      const client = new pg.Pool({ connectionString: url });
      return {
        client,
        async finish() {
          const { rows } = await client.query('SELECT 1 AS one');
          await client.end();
          return rows.length === 1;
        },
      };
    },
  ],
  [
    'Postgres.js',
    () => {
      const client = postgresJs(url, { onnotice: () => undefined, transform: postgresJs.camel });
      return {
        client,
        async finish() {
          const rows = await client`SELECT 1 AS one`;
          await client.end();
          return rows.length === 1;
        },
      };
    },
  ],
  [
    'PGlite',
    () => {
      const client = new PGlite();
      return {
        client,
        async finish() {
          const isOpen = !client.closed;
          await client.close();
          return isOpen;
        },
      };
    },
  ],
  ['Neon over HTTP', () => ({ client: neon(neonUrl()), finish: async () => true })],
  [
    'Neon over HTTP, with all its options',
    () => ({ client: neon(neonUrl(), { arrayMode: true, fullResults: true }), finish: async () => true }),
  ],
];

describe.each(clients)('%s', (_name, open) => {
  it('stores, changes, destroys and sweeps sessions, and is not closed', async () => {
    const app = open();
    const store: DriverStore = await openStore({ client: app.client });
    const key = newKey();
    const set = new Map([
      ['user', ':"ada"'],
      ['naïve "name" \\ %\n', ':"x\u{1F600}"'],
    ]);
    expect(await store.read(key, call())).toBeNull();
    expect(await store.patch(key, change({ mustBeNew: true, set }), call())).toBe('applied');
    expect(await store.read(key, call())).toEqual(set);
    expect(await store.read(key, { ...call(), extendIdleMs: 60_000 })).toEqual(set);
    expect(await store.patch(key, change({ mustBeNew: true }), call())).toBe('conflict');
    const expected = new Map([['user', ':"bob"']]);
    expect(await store.patch(key, change({ expect: expected, unset: ['user'] }), call())).toBe('conflict');
    expect(await store.destroy(key, 60_000, call())).toEqual(set);
    expect(await store.destroy(key, 60_000, call())).toBe('destroyed');
    expect(await store.patch(key, change({ set }), call())).toBe('destroyed');
    await store.patch(newKey(), change({ set, lifetimeMs: -1_200_000, defaultTtlMs: -1_200_000 }), call());
    expect(await store.sweep!(10, call())).toBe(1);
    expect(await store.legacySessions!.read('id', undefined, call())).toBeUndefined();
    await store.close?.();
    expect(await app.finish()).toBe(true);
  });

  it('is the client of a driver', async () => {
    const app = open();
    const sessions = createSessions({ driver: postgres({ client: app.client }) });
    const session = sessions.open('');
    session.set('user', 'ada');
    const cookie = (await session.commit())!;
    expect(await sessions.open(cookie).get('user')).toBe('ada');
    await app.finish();
  });

  it('reports an error of PostgreSQL with its SQLSTATE, and nothing of what was stored', async () => {
    const app = open();
    const driver = postgres({ client: app.client, table: 'missing.sessions' });
    const session = createSessions({ driver }).open('');
    session.set('user', 'precious');
    const error = await session.commit().catch((reason: unknown) => reason as Error);
    expect(error).toMatchObject({
      code: 'configuration',
      message: expect.stringMatching(/no schema with the name in `table`/),
    });
    expect(error).toMatchObject({ cause: { code: '3F000' } });
    await app.finish();
  });
});

it('clients that are created in every request are garbage-collected, with their connections closed by the app', async () => {
  const created: WeakRef<object>[] = [];
  const visit = async (): Promise<void> => {
    const client = new pg.Pool({ connectionString: url, max: 1 });
    created.push(new WeakRef(client));
    const session = createSessions({ driver: postgres({ client }) }).open('');
    session.set('user', 'ada');
    await session.commit();
    await client.end();
  };
  for (let request = 0; request < 20; request++) await visit();
  // pg has closed the sockets in a later turn.
  const server = await sharedPostgres();
  const count = `SELECT count(*)::int AS count FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`;
  await expect.poll(async () => (await server.query(count, [], url))[0]!['count']).toBeLessThan(3);
  await collectGarbage();
  expect(created.filter((client) => client.deref()).length).toBeLessThan(5);
});

it('a client without the methods is refused', async () => {
  const driver = postgres({ client: {} as never });
  await expect(driver.getItem(crypto.randomUUID())).rejects.toMatchObject({
    code: 'configuration',
    message: expect.stringMatching(/`client` expected a client with the method query|expected a client/),
  });
});

it('a read is sent once', async () => {
  const store = await openStore({ client: neon(neonUrl()) });
  const key = newKey();
  await store.patch(key, change({ set: new Map([['a', ':1']]) }), call());
  bridge.statements.length = 0;
  await store.read(key, call());
  await store.read(key, { ...call(), extendIdleMs: 60_000 });
  await store.patch(key, change({ unset: ['a'] }), call());
  await store.destroy(key, 1000, call());
  expect(bridge.statements).toHaveLength(4);
  await sql(url, 'SELECT 1');
});

describe('a pool of the app whose connections are all busy', () => {
  const pools: [
    name: string,
    open: () => { client: PostgresClient | PostgresJsClient; end(): Promise<unknown> },
    take: (client: never) => Promise<{ release(): void }>,
  ][] = [
    [
      'pg',
      () => {
        const client = new pg.Pool({ connectionString: url, max: 1 });
        return { client, end: () => client.end() };
      },
      (client: pg.Pool) => client.connect(),
    ],
    [
      'Postgres.js',
      () => {
        const client = postgresJs(url, { max: 1, onnotice: () => undefined });
        return { client, end: () => client.end() };
      },
      (client: postgresJs.Sql) => client.reserve(),
    ],
  ];

  it.each(pools)('%s: a write that got no connection in time is not stored later', async (_name, open, take) => {
    const { client, end } = open();
    const store = await openStore({ client });
    const key = newKey();
    await store.patch(key, change({ set: new Map([['a', ':1']]) }), call());
    const taken = await take(client as never);
    const late = store.patch(key, change({ set: new Map([['a', ':2']]) }), call(200));
    await expect(late).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/all connections of `client` are busy\. Nothing was sent\./),
    });
    taken.release();
    expect(await store.read(key, call())).toEqual(new Map([['a', ':1']]));
    await end();
  });
});

it('`client` with another place is an error', async () => {
  const driver = postgres({ client: { query: async () => [] }, url });
  await expect(driver.getItem(crypto.randomUUID())).rejects.toMatchObject({
    code: 'configuration',
    message: expect.stringContaining('With `client`, leave out `url`'),
  });
});
