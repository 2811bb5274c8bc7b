import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { startPostgres } from '@coatcheck/test-support/postgres-server';
import { change } from '@coatcheck/test-support/stores';
import type { SessionStore } from '@coatcheck/session-core/driver';
import { Pool } from 'pg';
import { openStore } from '../packages/session-postgres/src/store.ts';
import { openStore as openSqlite } from '../packages/session-sqlite/src/store.ts';
import { load } from './load.ts';
import { cookiesOf, loadInTurns, rate, startServer, withQuartiles } from './http.ts';
import { median, quantile, ratio, repeat, takeTurns, wallOf } from './measure.ts';
import { digits, spread, times, type Group, type Row } from './report.ts';

const CONNECTIONS = 32;
const KEYS = 1000;
const keyOf = (index: number): string => `session:${String(index).padStart(43, '0')}`;

/** A record of 1.4 kB in four fields, as the engine stores the typical session. */
const typical = new Map([
  ['user', `:${JSON.stringify([{ id: 1 }, 4711, 'x'.repeat(80)])}`],
  ['cart', `:${JSON.stringify(Array.from({ length: 10 }, (_, line) => `line ${line} ${'x'.repeat(100)}`))}`],
  ['flash', `:["Your changes were saved."]`],
  ['token', `:["${'x'.repeat(36)}"]`],
]);

const call = () => ({ signal: new AbortController().signal });
let count = 0;
const oneField = () => change({ set: new Map([['flash', `:["Saved for the ${++count}th time."]`]]) });

async function fill(store: SessionStore): Promise<void> {
  for (let index = 0; index < KEYS; index++) await store.patch(keyOf(index), change({ set: typical }), call());
}

let next = 0;
const someKey = (): string => keyOf(next++ % KEYS);

type Work = () => unknown;

/** A folder that is removed when the command ends. */
function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'coatcheck-bench-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A store, beside the same statements without it. */
function atStore(
  name: string,
  what: string,
  reach: number,
  workers: number,
  open: () => Promise<AsyncDisposable & { bare: Work; ours: Work }>,
): Row {
  return {
    name,
    what,
    reach: `at least ${reach}`,
    async run(quick) {
      await using subject = await open();
      const turn = (work: Work) => () => repeat(work, workers > 1 ? 60 : 20, workers);
      const took = await takeTurns({ bare: turn(subject.bare), ours: turn(subject.ours) }, quick ? 10 : 80);
      const factor = ratio(took.bare, took.ours);
      return {
        cells: [spread(wallOf(took.bare), 'µs'), spread(wallOf(took.ours), 'µs')],
        ours: digits(factor),
        reached: factor >= reach,
      };
    },
  };
}

/** Opens a store on PostgreSQL. Its connections do not keep this process alive: in an app, the deadline of an operation does. */
async function openPostgres(options: { url: string; maxConnections?: number }): Promise<SessionStore> {
  const alive = setInterval(() => undefined, 1000);
  const { close, ...store } = await openStore(options, { env: () => undefined, timeoutMs: 60_000 });
  return {
    ...store,
    async close() {
      clearInterval(alive);
      await close!();
    },
  };
}

async function postgres(work: (store: SessionStore) => Work, bareWork: (pool: Pool) => Work) {
  const server = await startPostgres();
  const store = await openPostgres({ url: server.url, maxConnections: CONNECTIONS });
  await fill(store);
  await server.query('VACUUM ANALYZE');
  await server.query('CHECKPOINT');
  const pool = new Pool({ connectionString: server.url, max: CONNECTIONS });
  return {
    ours: work(store),
    bare: bareWork(pool),
    async [Symbol.asyncDispose]() {
      await pool.end();
      await store.close!();
      await server[Symbol.asyncDispose]();
    },
  };
}

async function sqlite(work: (store: SessionStore) => Work, bareWork: (database: DatabaseSync) => Work) {
  const file = `${newFolder()}/sessions.db`;
  const store = await openSqlite({ file }, { timeoutMs: 60_000 });
  await fill(store);
  const database = new DatabaseSync(file);
  database.exec('PRAGMA synchronous = NORMAL');
  return {
    ours: work(store),
    bare: bareWork(database),
    async [Symbol.asyncDispose]() {
      database.close();
      await store.close!();
    },
  };
}

const POSTGRES_CLOCK = 'floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint';
const POSTGRES_READ = `SELECT fields::text AS result FROM coatcheck_sessions WHERE key = $1 AND until > ${POSTGRES_CLOCK} AND fields IS NOT NULL`;
const POSTGRES_PATCH = `SELECT coatcheck_sessions_patch_2($1, $2::text::jsonb) AS result`;

const atStores: Row[] = [
  atStore('postgres-read', `PostgreSQL, 1.4 kB: read, ${CONNECTIONS} at once`, 0.8, CONNECTIONS, () =>
    postgres(
      (store) => () => store.read(someKey(), call()),
      (pool) => () => pool.query(POSTGRES_READ, [someKey()]),
    ),
  ),
  atStore('postgres-patch', `PostgreSQL, 1.4 kB: set one field, ${CONNECTIONS} at once`, 0.8, CONNECTIONS, () =>
    postgres(
      (store) => () => store.patch(someKey(), oneField(), call()),
      (pool) => () => {
        const { set, ...rest } = oneField();
        return pool.query(POSTGRES_PATCH, [someKey(), JSON.stringify({ ...rest, set: Object.fromEntries(set) })]);
      },
    ),
  ),
  atStore('sqlite-read', 'SQLite, 1.4 kB: read', 0.6, 1, () =>
    sqlite(
      (store) => () => store.read(someKey(), call()),
      (database) => {
        const read = database.prepare(
          'SELECT fields FROM coatcheck_sessions WHERE key = ? AND until > ? AND fields IS NOT NULL',
        );
        return () => read.get(someKey(), Date.now());
      },
    ),
  ),
  atStore('sqlite-patch', 'SQLite, 1.4 kB: set one field', 0.6, 1, () =>
    sqlite(
      (store) => () => store.patch(someKey(), oneField(), call()),
      (database) => {
        const find = database.prepare(
          'SELECT until, expires, fields FROM coatcheck_sessions WHERE key = ? AND until > ?',
        );
        const save = database.prepare(`UPDATE coatcheck_sessions SET until = ?, expires = ?, fields = ? WHERE key = ?`);
        return () => {
          const key = someKey();
          const until = Date.now() + 3_600_000;
          database.exec('BEGIN IMMEDIATE');
          const row = find.get(key, Date.now()) as { fields: string };
          save.run(until, until, row.fields, key);
          database.exec('COMMIT');
        };
      },
    ),
  ),
];

/** `Session` on `node:http`, beside express-session on Express. */
function besideExpress(name: string, what: string, open: () => Promise<AsyncDisposable & { url: () => string }>): Row {
  return {
    name,
    what,
    reach: 'above 1 / above 1',
    async run(quick) {
      await using backend = await open();
      await using theirs = await startServer('express', backend.url());
      await using ours = await startServer('node', backend.url());
      const [theirCookies, ourCookies] = [await cookiesOf(theirs), await cookiesOf(ours)];
      const took = await loadInTurns(
        {
          read: { server: theirs, path: '/read', cookies: theirCookies },
          ourRead: { server: ours, path: '/read', cookies: ourCookies },
          write: { server: theirs, path: '/write', cookies: theirCookies },
          ourWrite: { server: ours, path: '/write', cookies: ourCookies },
        },
        quick,
        [
          ['read', 'ourRead'],
          ['write', 'ourWrite'],
        ],
      );
      const gains = [ratio(took.read, took.ourRead), ratio(took.write, took.ourWrite)];
      return {
        cells: [`${rate(took.read)}<br>${rate(took.write)}`, `${rate(took.ourRead)}<br>${rate(took.ourWrite)}`],
        ours: `${gains.map(times).join(' / ')}; CPU: ${withQuartiles(took.read, took.ourRead)} / ${withQuartiles(took.write, took.ourWrite)}`,
        reached: gains.every((gain) => gain > 1),
      };
    },
  };
}

const MILLION = 1_000_000;
const EXPIRED = 100_000;

/** Requests that read and change their session, while expired sessions are swept. */
function sweeping(
  name: string,
  what: string,
  open: (sessions: number, expired: number) => Promise<AsyncDisposable & { url: string }>,
): Row {
  return {
    name,
    what,
    reach: 'at most 3 times the median',
    async run(quick) {
      await using subject = await open(quick ? MILLION / 100 : MILLION, quick ? EXPIRED / 100 : EXPIRED);
      // Otherwise, the kernel would write all of that to the disk while requests are measured.
      execFileSync('sync');
      await using server = await startServer('node', subject.url);
      const cookies = await cookiesOf(server);
      const waits = async (isDone: number | (() => boolean)): Promise<number[]> => {
        const took: number[] = [];
        await load(server.address, '/write', cookies, isDone, took);
        return took;
      };
      await waits(quick ? 100 : 4000);
      const quiet = await waits(quick ? 100 : 40_000);
      let isDone = false;
      const swept = (async () => {
        let removed = 0;
        for (let last = 1; last > 0; removed += last)
          last = Number(await (await fetch(`${server.address}/sweep`)).text());
        isDone = true;
        return removed;
      })();
      const busy = await waits(() => isDone);
      const factor = quantile(busy, 1) / median(quiet);
      const waited = (took: number[]): string =>
        `${milliseconds(median(took))}, 99.9 %: ${milliseconds(quantile(took, 0.999))}, longest ${milliseconds(quantile(took, 1))}`;
      return {
        cells: [waited(quiet), `${waited(busy)}; ${(await swept).toLocaleString('en')} removed`],
        ours: times(factor),
        reached: factor <= 3,
      };
    },
  };
}

const milliseconds = (us: number): string => `${digits(us / 1000)} ms`;

export const onSql: Group = {
  title: 'On SQL databases',
  about:
    'At the store: wall-clock time of the same statements by the client alone, and by the store of our driver, which also checks, packs and unpacks the ' +
    'fields; `ours` is the part of the speed that is left. Then answers a second over HTTP, with 32 connections, for a read and for a write: ' +
    'express-session with its store for this database, and `node:http` with `Session`. Then how long requests of 32 connections wait for their ' +
    'answer: without a sweep, and while expired sessions are removed.',
  columns: ['without us, or without a sweep', 'Coatcheck'],
  rows: [
    ...atStores,
    besideExpress('postgres-http', 'Express with connect-pg-simple, then `Session`', async () => {
      const server = await startPostgres();
      return { url: () => server.url, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
    }),
    besideExpress('sqlite-http', 'Express with better-sqlite3-session-store, then `Session`', async () => {
      const folder = newFolder();
      return { url: () => `sqlite:${folder}/${randomUUID()}.db`, [Symbol.asyncDispose]: async () => undefined };
    }),
    sweeping(
      'postgres-sweep',
      'PostgreSQL: a million sessions, of which 100,000 have expired',
      async (sessions, expired) => {
        const server = await startPostgres();
        const store = await openPostgres({ url: server.url });
        await fill(store);
        await store.close!();
        await server.query(
          `INSERT INTO coatcheck_sessions (key, until, expires, fields)
         SELECT 'other:' || i, u, u, '{"user": ":[\\"ada\\"]"}' FROM generate_series(1, ${sessions}) i,
         LATERAL (SELECT (extract(epoch FROM now()) * 1000)::bigint + CASE WHEN i % ${sessions / expired} = 0 THEN -3600000 - i ELSE 3600000 + i END u) t`,
        );
        await server.query('VACUUM ANALYZE');
        await server.query('CHECKPOINT');
        return { url: server.url, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
      },
    ),
    sweeping('sqlite-sweep', 'SQLite: the same', async (sessions, expired) => {
      const file = `${newFolder()}/sessions.db`;
      const store = await openSqlite({ file }, { timeoutMs: 60_000 });
      await fill(store);
      await store.close!();
      const database = new DatabaseSync(file);
      database
        .prepare(
          `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
           INSERT INTO coatcheck_sessions (key, until, expires, fields, bucket)
           SELECT 'other:' || i, u, u, '{"user":":[\\"ada\\"]"}', u / 600000 FROM (SELECT i, ? + CASE WHEN i % ? = 0 THEN -3600000 - i ELSE 3600000 + i END u FROM n)`,
        )
        .run(sessions, Date.now(), sessions / expired);
      database.exec('PRAGMA wal_checkpoint(TRUNCATE)');
      database.close();
      return { url: `sqlite:${file}`, [Symbol.asyncDispose]: async () => undefined };
    }),
  ],
};
