import { chownSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { createSessions } from '@coatcheck/session-core';
import { createTableSql, type PostgresDriverConfig } from '@coatcheck/session-postgres';
import postgres from '@coatcheck/session-postgres/runtime';
import { NOT_ROOT } from '@coatcheck/test-support/debian';
import { startProxy } from '@coatcheck/test-support/fault-proxy';
import { startPostgres, type PostgresServer } from '@coatcheck/test-support/postgres-server';
import { freePort } from '@coatcheck/test-support/ports';
import { call, change, newKey } from '@coatcheck/test-support/stores';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { EXPIRED, KEY, VALID } from '../../../test/faults/certificates.ts';
import { openStore as open } from '../src/store.ts';
import { openClient, openStore } from './support/store.ts';

/** A deadline that is further away than the limit of a test: what waits for it, or for a part of it, fails. */
const NEVER_MS = 600_000;
const PASSWORD = 'p@ss/w?rd#%';

/** https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-SSLREQUEST */
const SSL_REQUEST = 80877103;

let server: PostgresServer;
let url: string;

const folder = mkdtempSync(join(tmpdir(), 'coatcheck-'));

beforeAll(async () => {
  const file = (name: string, text: string): string => {
    const path = join(folder, name);
    writeFileSync(path, text, { mode: 0o600 });
    if (NOT_ROOT.uid !== undefined) chownSync(path, NOT_ROOT.uid, NOT_ROOT.gid!);
    return path;
  };
  if (NOT_ROOT.uid !== undefined) chownSync(folder, NOT_ROOT.uid, NOT_ROOT.gid!);
  server = await startPostgres({
    settings: {
      ssl: 'on',
      ssl_cert_file: file('server.crt', VALID),
      ssl_key_file: file('server.key', KEY),
      hba_file: file(
        'pg_hba.conf',
        `host all ada 127.0.0.1/32 scram-sha-256
hostnossl all secure all reject
host all all all trust
`,
      ),
      listen_addresses: '127.0.0.1,::1',
    },
  });
  url = await server.createDatabase();
  await server.query(
    `CREATE ROLE ada LOGIN PASSWORD '${PASSWORD}'; CREATE ROLE secure LOGIN; CREATE ROLE crowd LOGIN CONNECTION LIMIT 0`,
  );
  await server.query(`${createTableSql()} GRANT ALL ON coatcheck_sessions TO PUBLIC`, undefined, url);
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

const as = (user: string, base = url): string => base.replace('postgres@', `${user}@`);

/** What a site gets that stores a session. */
async function visit(config: PostgresDriverConfig, value: unknown = 'precious'): Promise<unknown> {
  const session = createSessions({ driver: postgres({ timeout: NEVER_MS, ...config }) }).open('');
  session.set('value', value);
  return session.commit().then(
    () => 'stored',
    (error: unknown) => error,
  );
}

describe('the password', () => {
  it('can contain any characters', async () => {
    const inUrl = as(`ada:${encodeURIComponent(PASSWORD)}`);
    expect(await visit({ url: inUrl })).toBe('stored');
  });

  it.each([
    ['a wrong one', 'ada:precious', /refuses the user or the password/],
    ['none', 'ada', /wants a password/],
  ])('%s is an error at once, which does not contain it', async (_what, user, message) => {
    const error = await visit({ url: as(user) });
    expect(error).toMatchObject({ code: 'configuration', message: expect.stringMatching(message) });
    expect(inspect(error, { depth: 20, showHidden: true })).not.toContain('precious');
  });

  it('comes from PGPASSWORD, with the other variables of libpq', async () => {
    const { port, pathname } = new URL(url);
    const env: Record<string, string> = {
      PGHOST: '127.0.0.1',
      PGPORT: port,
      PGUSER: 'ada',
      PGPASSWORD: PASSWORD,
      PGDATABASE: pathname.slice(1),
    };
    const store = await open({}, { env: (name) => env[name], timeoutMs: NEVER_MS });
    expect(await store.patch(newKey(), change({}), call())).toBe('applied');
    await store.close!();
  });
});

describe('TLS', () => {
  it('is not trusted without the private certificate authority, or with another one', async () => {
    for (const config of [{ url: `${url}?sslmode=require` }, { url, tls: true }, { url, tls: { ca: EXPIRED } }]) {
      expect(await visit(config)).toMatchObject({
        code: 'configuration',
        message: expect.stringMatching(/Cannot open a TLS connection .*CERT.* set `tls\.ca`/),
      });
    }
  });

  it('is trusted with it, for the name in the certificate, also when the URL says something else', async () => {
    const tls = { ca: VALID, servername: 'redis.test' };
    const named = url.replace('127.0.0.1', 'localhost');
    for (const where of [url, named, `${named}?sslmode=disable`, `${named}?ssl=true&sslrootcert=/nowhere`]) {
      expect(await visit({ url: as('secure', where), tls })).toBe('stored');
    }
    expect(await visit({ url: named, tls: { ca: VALID } })).toMatchObject({ code: 'configuration' });
    expect(await visit({ url: named, tls: { ca: VALID, servername: 'other.test' } })).toMatchObject({
      code: 'configuration',
    });
    expect(await visit({ url: `${as('secure')}?sslmode=no-verify` })).toBe('stored');
    expect(await visit({ url: `${as('secure')}?sslmode=require&uselibpqcompat=true` })).toBe('stored');
  });

  it('is also used to cancel a statement', async () => {
    const { port, hostname } = new URL(url);
    /** What each connection asked for first. */
    const codes: number[] = [];
    const relay = createServer((socket) => {
      socket.once('data', (message) => codes.push(message.readUInt32BE(4)));
      const onward = connect(Number(port), hostname);
      socket.on('error', () => onward.destroy());
      onward.on('error', () => socket.destroy());
      socket.pipe(onward).pipe(socket);
    }).listen(0);
    onTestFinished(() => void relay.close());
    const through = url.replace(`:${port}`, `:${(relay.address() as AddressInfo).port}`);
    const store = await openStore({ url: through, tls: { ca: VALID, servername: 'redis.test' } }, NEVER_MS);
    await store.patch('locked', change({}), call());
    const blocker = await openClient(url);
    await blocker.query(`BEGIN; SELECT FROM coatcheck_sessions WHERE key = 'locked' FOR UPDATE`);
    await expect(store.patch('locked', change({}), call(300))).rejects.toMatchObject({ code: 'refused' });
    await blocker.query('COMMIT');
    expect(codes).toEqual([SSL_REQUEST, SSL_REQUEST]);
  });

  it('is missing: the error says so', async () => {
    expect(await visit({ url: as('secure') })).toMatchObject({
      code: 'configuration',
      message: expect.stringMatching(/or connections without TLS/),
    });
    await using plain = await startPostgres();
    expect(await visit({ url: `${plain.url}?sslmode=require` })).toMatchObject({
      code: 'configuration',
      message: expect.stringMatching(/does not support TLS\. Turn on `ssl` in PostgreSQL/),
    });
  });
});

it('a database that does not exist, and a file that does not, are errors at once', async () => {
  expect(await visit({ url: url.replace(/\w+$/, 'nowhere') })).toMatchObject({
    code: 'configuration',
    message: expect.stringMatching(/no database with this name/),
  });
  expect(await visit({ url: `${url}?sslmode=verify-full&sslrootcert=/nowhere` })).toMatchObject({
    code: 'configuration',
    message: expect.stringMatching(/DATABASE_URL or `url`: ENOENT/),
  });
});

it.each([
  [
    '-c nonsense=1',
    /refuses the settings of the connection: unrecognized configuration parameter "nonsense"\. Correct `options`/,
  ],
  ['nonsense', /refuses the settings of the connection: invalid command-line argument/],
])('`options=%s` in the URL is an error at once', async (options, message) => {
  expect(await visit({ url: `${url}?options=${encodeURIComponent(options)}` })).toMatchObject({
    code: 'configuration',
    message: expect.stringMatching(message),
  });
});

it('a database that cannot store every text says so', async () => {
  await server.query(`CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0`);
  const latin = server.url.replace(/\w+$/, 'latin');
  const store = await openStore({ url: latin });
  const write = (text: string) => store.patch('key', change({ set: new Map([['user', text]]) }), call());
  expect(await write(':"Zoë"')).toBe('applied');
  await expect(write(':"Ada 🧥"')).rejects.toMatchObject({
    code: 'configuration',
    message: expect.stringMatching(/cannot store this text.*must be UTF8/),
  });
  expect((await store.read('key', call()))!.get('user')).toBe(':"Zoë"');
  await store.close!();
});

describe('a PostgreSQL that cannot serve for now', () => {
  it('nobody listens: unavailable, with the address', async () => {
    const port = await freePort();
    expect(await visit({ url: `postgres://127.0.0.1:${port}/shop`, timeout: 300 })).toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(
        new RegExp(`Cannot connect to PostgreSQL at 127\\.0\\.0\\.1:${port}: ECONNREFUSED\\. Nothing was sent`),
      ),
    });
  });

  it('a statement waits for a connection while the user has too many', async () => {
    expect(await visit({ url: as('crowd'), timeout: 300 })).toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/no connections left/),
    });
    const writing = visit({ url: as('crowd'), maxConnections: 1 });
    await server.query('ALTER ROLE crowd CONNECTION LIMIT 10');
    expect(await writing).toBe('stored');
  });

  it('a write that meets a read-only server is sent to its successor, on new connections', async () => {
    const database = await server.createDatabase();
    const name = new URL(database).pathname.slice(1);
    const store = await openStore({ url: database });
    await store.patch('key', change({}), call());
    await server.query(`ALTER DATABASE ${name} SET default_transaction_read_only = on`);
    const other = await openStore({ url: database }, 300);
    await expect(other.patch('key', change({}), call())).rejects.toMatchObject({
      code: 'refused',
      message: expect.stringMatching(/accepts no writes/),
    });
    const patient = await openStore({ url: database });
    await patient.read('key', call());
    const writing = Promise.all(Array.from({ length: 30 }, () => patient.patch('key', change({}), call())));
    await server.query(`ALTER DATABASE ${name} RESET default_transaction_read_only`);
    expect(new Set(await writing)).toEqual(new Set(['applied']));
  });

  it('a restart only delays a read and a write', async () => {
    await using own = await startPostgres();
    const store = await openStore({ url: own.url });
    await store.patch('key', change({ set: new Map([['a', ':1']]) }), call());
    await own.stop();
    const working = Promise.all([store.read('key', call()), store.patch('key', change({}), call())]);
    await own.restart();
    expect(await working).toEqual([new Map([['a', ':1']]), 'applied']);
    await own.kill();
    await own.restart();
    expect(await store.read('key', call())).toEqual(new Map([['a', ':1']]));
  });
});

describe('a connection that is ended while a statement waits', () => {
  const endConnections = (): Promise<unknown> =>
    server.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'`);
  const waiting = async (): Promise<number> =>
    (await server.query(`SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'`)).length;

  it('fails a write, whose outcome is unknown, and only delays a read', async () => {
    const store = await openStore({ url });
    const key = newKey();
    await store.patch(key, change({ set: new Map([['a', ':1']]) }), call());
    const blocker = await openClient(url);
    await blocker.query('BEGIN; LOCK TABLE coatcheck_sessions IN ACCESS EXCLUSIVE MODE');
    const read = store.read(key, call());
    const write = store.patch(key, change({ set: new Map([['a', ':2']]) }), call()).catch((error: unknown) => error);
    await expect.poll(waiting).toBe(2);
    await endConnections();
    expect(await write).toMatchObject({
      code: 'interrupted',
      message:
        '[session-postgres] The connection to PostgreSQL broke during a write. It may have been stored; it is not sent again.',
    });
    await expect.poll(waiting).toBe(1);
    await blocker.query('COMMIT');
    expect(await read).toEqual(new Map([['a', ':1']]));
  });

  it('is replaced if it was idle', async () => {
    await using proxy = await startProxy({ target: server.port });
    const store = await openStore({ url: url.replace(/:\d+\//, `:${proxy.port}/`) });
    await store.patch('key', change({}), call());
    await server.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1`, [
      new URL(url).pathname.slice(1),
    ]);
    await expect.poll(() => proxy.open).toBe(0);
    expect(await store.patch('key', change({}), call())).toBe('applied');
    expect(proxy.connections).toBe(2);
  });
});

it('an error of a trigger of one’s own contains no values', async () => {
  const database = await server.createDatabase();
  expect(await visit({ url: database })).toBe('stored');
  await server.query(
    `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no %', new.fields; END $$;
     CREATE TRIGGER refuse BEFORE INSERT ON coatcheck_sessions FOR EACH ROW EXECUTE FUNCTION refuse()`,
    [],
    database,
  );
  const error = await visit({ url: database });
  expect(error).toMatchObject({ code: 'refused', cause: { code: 'P0001', message: 'PostgreSQL: P0001' } });
  expect(inspect(error, { depth: 20, showHidden: true })).not.toContain('precious');
});

it('closing waits for statements', async () => {
  const store = await open({ url }, { env: () => undefined, timeoutMs: NEVER_MS });
  const key = newKey();
  const write = store.patch(key, change({ set: new Map([['a', ':1']]) }), call());
  // The statement has been sent.
  await Promise.race([write, store.read(key, call())]);
  await store.close!();
  expect(await write).toBe('applied');
});
