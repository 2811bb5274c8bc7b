import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, relative, sep } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import type { SharedOptions, SessionDriver } from '@coatcheck/session-core/driver';
import cloudflareKv from '@coatcheck/session-cloudflare-kv/runtime';
import { createTableSql as d1Sql } from '@coatcheck/session-d1';
import d1 from '@coatcheck/session-d1/runtime';
import durableObjects, { type SessionNamespace } from '@coatcheck/session-durable-objects/runtime';
import fs from '@coatcheck/session-fs/runtime';
import { createTableSql as libsqlSql } from '@coatcheck/session-libsql';
import libsql from '@coatcheck/session-libsql/runtime';
import netlifyBlobs from '@coatcheck/session-netlify-blobs/runtime';
import redis from '@coatcheck/session-redis/runtime';
import { createTableSql as postgresSql } from '@coatcheck/session-postgres';
import postgres from '@coatcheck/session-postgres/runtime';
import { createTableSql as sqliteSql } from '@coatcheck/session-sqlite';
import sqlite from '@coatcheck/session-sqlite/runtime';
import { fromUnstorage } from '@coatcheck/session-unstorage';
import upstash from '@coatcheck/session-upstash/runtime';
import { Redis } from 'ioredis';
import { startKv } from '../../packages/session-cloudflare-kv/test/support/kv.ts';
import { startD1 } from '../../packages/session-d1/test/support/d1.ts';
import { startNamespace } from '../../packages/session-durable-objects/test/support/objects.ts';
import type { InspectedSession } from '../../packages/session-durable-objects/test/workers/inspected-session.ts';
import { startSqld } from '../../packages/session-libsql/test/support/sqld.ts';
import { plainDriver } from '../../packages/session-core/test/support/plain-driver.ts';
import { contextFor, SITE, startBlobs, TOKEN } from '../../packages/session-netlify-blobs/test/support/blobs.ts';
import { makeDriver } from '../../packages/session-unstorage/test/support/make-driver.ts';
import { startPostgres } from '../support/postgres-server.ts';
import { startRedis } from '../support/redis-server.ts';
import { startUpstashBridge } from '../support/upstash-bridge.ts';

/** What version 0.x stored, as `record.ts` wrote it down. */
export interface Recording {
  /** The one that encrypted most of the encrypted session, and the one after it. */
  secrets: [first: string, next: string];
  /** The key that was encrypted with the next secret. */
  rotated: string;
  ids: Record<Kind, string>;
  /** What the sessions `plain` and `encrypted` hold: keys in `values.ts`. */
  keys: string[];
  backends: Record<string, Partial<Record<Kind, Stored[]>>>;
}

/** A plaintext session, the same encrypted, one without a key, and one that was removed. */
export type Kind = 'plain' | 'encrypted' | 'empty' | 'removed';

export const KINDS: readonly Kind[] = ['plain', 'encrypted', 'empty', 'removed'];

/** One thing that lies in a backend, as it lies there. All of it is text. */
export interface Stored {
  /** A key, the name of a blob, or the path of a file. */
  key: string;
  text?: string;
  /** Of a hash. */
  fields?: Record<string, string>;
  /** Of a blob. */
  metadata?: Record<string, unknown>;
  /**
   * When the backend was to drop it by itself, in seconds: how many were left, because it counts them by its own clock and anew when
   * this is put back. Absent: never.
   */
  expiresIn?: number;
}

/** A real backend, which is empty at first. */
export interface Backend extends AsyncDisposable {
  /** The kinds that it keeps. */
  kinds: readonly Kind[];
  driver(config?: SharedOptions): SessionDriver;
  /** All that it holds, past our code, by key. */
  dump(): Promise<Stored[]>;
  /** Puts there what was dumped, past our code. */
  load(stored: readonly Stored[]): Promise<void>;
}

/** By the folder of the package. What session-memory keeps goes with the process. */
export const backends: Record<string, () => Promise<Backend>> = {
  'session-cloudflare-kv': onCloudflareKv,
  'session-core': onThreeMethods,
  'session-d1': onD1,
  'session-durable-objects': onDurableObjects,
  'session-fs': inFiles,
  'session-libsql': onLibsql,
  'session-netlify-blobs': onNetlifyBlobs,
  'session-postgres': onPostgres,
  'session-redis': onRedis,
  'session-sqlite': onSqlite,
  'session-unstorage': onUnstorage,
  'session-upstash': onUpstash,
};

function onRedis(): Promise<Backend> {
  return inHashes(async (url) => ({
    driver: (config) => redis({ ...config, url }),
    async [Symbol.asyncDispose]() {},
  }));
}

function onUpstash(): Promise<Backend> {
  return inHashes(async (redisUrl) => {
    const bridge = await startUpstashBridge(redisUrl);
    const { url, token } = bridge;
    return {
      driver: (config) => upstash({ ...config, url, token }),
      [Symbol.asyncDispose]: () => bridge[Symbol.asyncDispose](),
    };
  });
}

async function inHashes(open: (url: string) => Promise<Pick<Backend, 'driver'> & AsyncDisposable>): Promise<Backend> {
  const server = await startRedis();
  const client = new Redis(server.url);
  const opened = await open(server.url);
  return {
    kinds: KINDS,
    driver: (config) => opened.driver(config),
    async dump() {
      const stored = (await client.keys('*')).map(async (key): Promise<Stored> => {
        const leftMs = await client.pttl(key);
        // Redis keeps fields in an order that differs from one server to the next.
        const fields = Object.fromEntries(Object.entries(await client.hgetall(key)).sort(byName));
        return { key, fields, ...(leftMs > 0 && { expiresIn: Math.ceil(leftMs / 1000) }) };
      });
      return inOrder(await Promise.all(stored));
    },
    async load(stored) {
      for (const { key, fields, expiresIn } of stored) {
        await client.hset(key, ...Object.entries(fields!).flat());
        if (expiresIn !== undefined) await client.expire(key, expiresIn);
      }
    },
    async [Symbol.asyncDispose]() {
      client.disconnect();
      await opened[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

async function onCloudflareKv(): Promise<Backend> {
  const kv = await startKv('SESSION');
  const namespace = kv.namespaces['SESSION']!;
  return {
    kinds: KINDS,
    driver: (config) => cloudflareKv({ ...config, client: namespace }),
    async dump() {
      const { keys } = await namespace.list();
      const stored = keys.map(async ({ name, expiration }): Promise<Stored> => {
        const left = expiration === undefined ? {} : { expiresIn: Math.ceil(expiration - Date.now() / 1000) };
        return { key: name, text: (await namespace.get(name, 'text'))!, ...left };
      });
      return inOrder(await Promise.all(stored));
    },
    async load(stored) {
      for (const { key, text, expiresIn } of stored) {
        await namespace.put(key, text!, expiresIn === undefined ? {} : { expirationTtl: expiresIn });
      }
    },
    [Symbol.asyncDispose]: () => kv[Symbol.asyncDispose](),
  };
}

async function onNetlifyBlobs(): Promise<Backend> {
  const blobs = await startBlobs();
  // Where the driver finds them, as on Netlify.
  process.env['NETLIFY_BLOBS_CONTEXT'] = contextFor(blobs.port);
  // How Netlify's client sends it.
  const METADATA = 'x-amz-meta-user';
  const ask = async (name: string, init: { method?: string; headers?: Record<string, string>; body?: string } = {}) => {
    const headers = { ...init.headers, authorization: `Bearer ${TOKEN}` };
    const answer = await fetch(`http://127.0.0.1:${blobs.port}/${SITE}/site:sessions/${name}`, { ...init, headers });
    if (!answer.ok) throw new Error(`The server for blobs answers with ${answer.status}.`);
    return answer;
  };
  return {
    kinds: KINDS,
    driver: (config) => netlifyBlobs(config),
    async dump() {
      const { blobs: found } = (await (await ask('')).json()) as { blobs: { key: string }[] };
      const stored = found.map(async ({ key }): Promise<Stored> => {
        const answer = await ask(key);
        const metadata = answer.headers.get(METADATA)?.replace(/^b64;/, '');
        return {
          key,
          text: await answer.text(),
          ...(metadata && {
            metadata: JSON.parse(Buffer.from(metadata, 'base64').toString()) as Record<string, unknown>,
          }),
        };
      });
      return inOrder(await Promise.all(stored));
    },
    async load(stored) {
      for (const { key, text, metadata } of stored) {
        const encoded = metadata && `b64;${Buffer.from(JSON.stringify(metadata)).toString('base64')}`;
        await ask(key, { method: 'PUT', body: text!, ...(encoded && { headers: { [METADATA]: encoded } }) });
      }
    },
    async [Symbol.asyncDispose]() {
      delete process.env['NETLIFY_BLOBS_CONTEXT'];
      await blobs[Symbol.asyncDispose]();
    },
  };
}

async function inFiles(): Promise<Backend> {
  const directory = await mkdtemp(join(tmpdir(), 'coatcheck-records-'));
  return {
    kinds: KINDS,
    driver: (config) => fs({ ...config, directory }),
    async dump() {
      const entries = await readdir(directory, { recursive: true, withFileTypes: true });
      const paths = entries.filter((it) => it.isFile()).map((it) => join(it.parentPath, it.name));
      const stored = paths.map(async (path): Promise<Stored> => {
        return { key: relative(directory, path).split(sep).join('/'), text: await readFile(path, 'utf8') };
      });
      return inOrder(await Promise.all(stored));
    },
    async load(stored) {
      for (const { key, text } of stored) {
        const path = join(directory, key);
        await mkdir(dirname(path), { recursive: true });
        await writeFile(path, text!);
      }
    },
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }),
  };
}

async function onPostgres(): Promise<Backend> {
  const server = await startPostgres();
  await server.query(postgresSql());
  return {
    kinds: KINDS,
    driver: (config) => postgres({ ...config, url: server.url }),
    async dump() {
      const rows = await server.query(
        `SELECT key, coalesce(fields::text, 'tombstone') AS text, (until - extract(epoch FROM now()) * 1000)::float AS left,
         until = 8640000000000000 AS "isEndless" FROM coatcheck_sessions`,
      );
      return inOrder(
        rows.map(({ key, text, left, isEndless }) => ({
          key: key as string,
          text: text as string,
          ...(!isEndless && { expiresIn: Math.ceil((left as number) / 1000) }),
        })),
      );
    },
    async load(stored) {
      for (const { key, text, expiresIn } of stored) {
        await server.query(
          `INSERT INTO coatcheck_sessions (key, until, expires, fields) SELECT $1, t, t, nullif($2, 'tombstone')::jsonb
           FROM (SELECT coalesce(extract(epoch FROM now()) * 1000 + $3::float8 * 1000, 8640000000000000)::bigint t) at`,
          [key, text, expiresIn ?? null],
        );
      }
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

async function onSqlite(): Promise<Backend> {
  const client = new DatabaseSync(':memory:');
  client.exec(sqliteSql());
  return {
    kinds: KINDS,
    driver: (config) => sqlite({ ...config, client }),
    async dump() {
      const rows = client.prepare('SELECT * FROM coatcheck_sessions').all();
      return inOrder(rows.map(({ key, ...columns }) => ({ key: key as string, text: JSON.stringify(columns) })));
    },
    async load(stored) {
      const insert = client.prepare('INSERT INTO coatcheck_sessions VALUES (:key, :until, :expires, :fields, :bucket)');
      for (const { key, text } of stored) {
        insert.run({ key, ...(JSON.parse(text!) as Record<string, string | number | null>) });
      }
    },
    async [Symbol.asyncDispose]() {
      client.close();
    },
  };
}

function onD1(): Promise<Backend> {
  return inBatches(d1Sql(), async () => {
    const d1s = await startD1('DB');
    const client = d1s.databases['DB']!;
    return {
      driver: (config) => d1({ ...config, client }),
      async query(sql, ...values) {
        const statement = client.prepare(sql).bind(...values);
        return (await statement.all()).results;
      },
      [Symbol.asyncDispose]: () => d1s[Symbol.asyncDispose](),
    };
  });
}

function onLibsql(): Promise<Backend> {
  return inBatches(libsqlSql(), async () => {
    const server = await startSqld();
    const { url, authToken } = server;
    return {
      driver: (config) => libsql({ ...config, url, authToken }),
      query: (sql, ...values) => server.query(sql, ...values),
      [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
    };
  });
}

interface Database extends Pick<Backend, 'driver'>, AsyncDisposable {
  query(sql: string, ...values: (string | number | null)[]): Promise<Record<string, unknown>[]>;
}

/** A database of SQLite elsewhere, whose clock cannot be moved. */
async function inBatches(tableSql: string, open: () => Promise<Database>): Promise<Backend> {
  const { query, ...database } = await open();
  for (const sql of tableSql.split(/;\n(?=.)/)) await query(sql);
  return {
    ...database,
    kinds: KINDS,
    async dump() {
      const rows = await query(
        `SELECT key, coalesce(fields, 'tombstone') AS text, until / 1000.0 - unixepoch('subsec') AS left,
         until = 8640000000000000 AS isEndless FROM coatcheck_sessions`,
      );
      return inOrder(
        rows.map(({ key, text, left, isEndless }) => ({
          key: key as string,
          text: text as string,
          ...(!isEndless && { expiresIn: Math.ceil(left as number) }),
        })),
      );
    },
    async load(stored) {
      for (const { key, text, expiresIn } of stored) {
        await query(
          `INSERT INTO coatcheck_sessions (key, until, expires, fields, bucket) SELECT ?1, t, t, nullif(?2, 'tombstone'), t / 600000
           FROM (SELECT coalesce(CAST((unixepoch('subsec') + ?3) * 1000 AS INTEGER), 8640000000000000) AS t)`,
          key,
          text!,
          expiresIn ?? null,
        );
      }
    },
  };
}

/** What an object stores, under one key. A namespace cannot list its objects, so their names are remembered. */
async function onDurableObjects(): Promise<Backend> {
  const workers = await startNamespace();
  const names = new Set<string>();
  const objectOf = (name: string) => workers.namespace.get(workers.namespace.idFromName(name)) as InspectedSession;
  const client: SessionNamespace = {
    idFromName: (name) => (names.add(name), { name }),
    get({ name }: { name: string }) {
      const operate: InspectedSession['operate'] = async (request) => {
        await objectOf(name).setClock(Date.now());
        return objectOf(name).operate(request);
      };
      return { operate };
    },
    jurisdiction: () => client,
  };
  return {
    kinds: KINDS,
    driver: (config) => durableObjects({ ...config, client }),
    async dump() {
      const stored = [...names].map(async (key) => ({ key, text: textOf((await objectOf(key).contents()).stored) }));
      return inOrder(await Promise.all(stored));
    },
    async load(stored) {
      for (const { key, text } of stored) {
        names.add(key);
        await objectOf(key).store(valueOf(text!));
      }
    },
    [Symbol.asyncDispose]: () => workers[Symbol.asyncDispose](),
  };
}

/** JSON has no Infinity, which is the end of what does not expire. */
function textOf(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) => (part === Infinity ? 'Infinity' : part));
}

function valueOf(text: string): unknown {
  return JSON.parse(text, (_, part: unknown) => (part === 'Infinity' ? Infinity : part));
}

/** What any of its drivers would keep: the frame around a value is ours. */
async function onUnstorage(): Promise<Backend> {
  const storage = makeDriver['memory']!({});
  return {
    kinds: KINDS,
    driver: (config) => fromUnstorage(storage, config),
    async dump() {
      const keys = await storage.getKeys('', {});
      return inOrder(
        await Promise.all(keys.map(async (key) => ({ key, text: (await storage.getItem(key)) as string }))),
      );
    },
    async load(stored) {
      for (const { key, text } of stored) await storage.setItem!(key, text!, {});
    },
    async [Symbol.asyncDispose]() {},
  };
}

/** Sessions as Astro writes them, under their ids. Encrypts nothing, and keeps no trace of what was removed. */
async function onThreeMethods(): Promise<Backend> {
  const driver = plainDriver();
  return {
    kinds: ['plain', 'empty'],
    driver: () => driver,
    dump: async () => inOrder([...driver.payloads].map(([key, text]) => ({ key, text }))),
    async load(stored) {
      for (const { key, text } of stored) driver.payloads.set(key, text!);
    },
    async [Symbol.asyncDispose]() {},
  };
}

function byName([one]: [string, string], [other]: [string, string]): number {
  return one < other ? -1 : 1;
}

function inOrder(stored: Stored[]): Stored[] {
  return stored.sort((one, other) => (one.key < other.key ? -1 : 1));
}
