import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { inspect } from 'node:util';

import type { SessionDriver } from '@coatcheck/session-core/driver';
import { createTableSql, libsqlDriver } from '@coatcheck/session-libsql';
import libsql from '@coatcheck/session-libsql/runtime';
import { startIsolates } from '@coatcheck/test-support/isolates';
import { visitsOn } from '@coatcheck/test-support/visits';
import { call, newKey } from '@coatcheck/test-support/stores';
import { createClient } from '@libsql/client/http';
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import type { LibsqlRuntimeConfig } from '../src/options.ts';
import { openStore } from '../src/store.ts';
import { startSqld, type Sqld } from './support/sqld.ts';

/** A timeout that is longer than the time limit of a test. */
const NEVER_MS = 600_000;

let server: Sqld;
let driver: SessionDriver;
beforeAll(async () => {
  server = await startSqld();
});
afterAll(() => server?.[Symbol.asyncDispose]());
beforeEach(() => {
  driver = open();
});

const target = () => ({ url: server.url, authToken: server.authToken });
const open = (config: LibsqlRuntimeConfig = {}): SessionDriver => libsql({ ...target(), ...config });

const { visit, signIn, userOf } = visitsOn(() => driver);
const rows = () => server.query('SELECT * FROM coatcheck_sessions ORDER BY key');

/** A server that answers every request with `answer`, or never. */
async function startFake(answer?: {
  status: number;
  body?: string;
  location?: string;
  echo?: boolean;
}): Promise<{ url: string; requests: number }> {
  const fake = { url: '', requests: 0 };
  const http: Server = createServer((request, response) => {
    fake.requests += 1;
    if (!answer) return;
    const { status, body, location, echo } = answer;
    response.writeHead(status, { 'content-type': 'text/plain', ...(location && { location }) });
    if (echo) response.write(JSON.stringify(request.headers));
    if (echo) request.pipe(response);
    else response.end(body);
  });
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  onTestFinished(() => {
    http.closeAllConnections();
    http.close();
  });
  fake.url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
  return fake;
}

describe('concurrent requests', () => {
  it('64 writers in each of two processes lose no updates', async () => {
    const key = newKey();
    const script = fileURLToPath(new URL('support/writer.ts', import.meta.url));
    const outputs = await Promise.all(
      ['one', 'other'].map((name) => {
        const args = ['--no-warnings', script, server.url, server.authToken, key, name, '64'];
        const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
        return text(child.stdout);
      }),
    );
    const acknowledged = outputs.flatMap((output) => output.trim().split('\n'));
    const store = await openStore(target(), { env: () => undefined, timeoutMs: 60_000 });
    const stored = [...(await store.read(key, call()))!.keys()].map((name) => `applied ${name}`);
    expect(stored).toHaveLength(128);
    expect(new Set(acknowledged)).toEqual(new Set(stored));
  });

  it('a session that is destroyed while others write to it stays destroyed', async () => {
    for (let round = 0; round < 10; round++) {
      const cookie = await signIn();
      const writing = Array.from({ length: 8 }, (_, index) =>
        visit((session) => session.set(`key${index}`, 1), cookie, index % 2 ? driver : open({ timeout: 4000 })),
      );
      await visit((session) => session.destroy(), cookie);
      await Promise.all(writing);
      expect(await userOf(cookie)).toBeUndefined();
    }
  });

  it('a change is atomic: if its last statement fails, nothing is stored', async () => {
    const cookie = await signIn();
    const before = await rows();
    await server.query(
      `CREATE TRIGGER broken BEFORE UPDATE OF bucket ON coatcheck_sessions BEGIN SELECT RAISE(ABORT, 'no'); END`,
    );
    try {
      const writing = visit((session) => session.set('cart', 1, { ttl: 31_536_000 }), cookie);
      await expect(writing).rejects.toMatchObject({ code: 'refused', operation: 'patch' });
      await expect(visit((session) => session.destroy(), cookie)).rejects.toMatchObject({ operation: 'destroy' });
      await expect(userOf(cookie, open({ idleTtl: 60 }))).rejects.toMatchObject({ operation: 'read' });
      expect(await rows()).toEqual(before);
    } finally {
      await server.query('DROP TRIGGER broken');
    }
  });
});

describe('a server in trouble', () => {
  it('that is killed and started again causes an error, never a missing session, and works again', async () => {
    const cookie = await signIn();
    await server.kill();
    const impatient = open({ timeout: 300 });
    const unavailable = { code: 'unavailable', message: expect.stringMatching(/ECONNREFUSED.* Nothing was sent/) };
    await expect(userOf(cookie, impatient)).rejects.toMatchObject(unavailable);
    await expect(visit((session) => session.set('cart', 1), cookie, open({ timeout: 301 }))).rejects.toMatchObject(
      unavailable,
    );
    // An operation that starts while the server is away waits for it.
    const reading = userOf(cookie, open({ timeout: NEVER_MS }));
    await server.restart();
    expect(await reading).toBe('ada');
    await expect.poll(() => userOf(cookie, impatient).catch(() => undefined)).toBe('ada');
  });

  it('that is frozen causes a timeout, and works again when it goes on', async () => {
    const cookie = await signIn();
    const impatient = open({ timeout: 300 });
    server.freeze();
    // The signal takes effect a moment later.
    const state = () => execFileSync('ps', ['-o', 'state=', '-p', String(server.process.pid)], { encoding: 'utf8' })[0];
    await expect.poll(state).toBe('T');
    try {
      await expect(userOf(cookie, impatient)).rejects.toMatchObject({ code: 'timeout' });
    } finally {
      server.thaw();
    }
    await expect.poll(() => userOf(cookie, impatient).catch(() => undefined)).toBe('ada');
  });

  it('behind a proxy that quotes the request: no error contains the token or a value', async () => {
    const proxy = await startFake({ status: 502, echo: true });
    const behind = open({ url: proxy.url, authToken: 'precious-token', timeout: 300 });
    const cookie = `astro-session=${crypto.randomUUID()}`;
    for (const act of [
      () => userOf(cookie, behind),
      () => visit((session) => session.set('user', 'precious ada'), '', behind),
    ]) {
      const error: unknown = await act().catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ name: 'SessionDriverError' });
      expect(inspect(error, { depth: 20, showHidden: true })).not.toMatch(/precious/);
      expect(inspect(error)).toContain('HTTP status 502');
    }
  });

  it('that sends its clients elsewhere gets no followers', async () => {
    const elsewhere = await startFake({ status: 200 });
    const moved = await startFake({ status: 307, location: `${elsewhere.url}/v2/pipeline` });
    await expect(signIn(open({ url: moved.url }))).rejects.toMatchObject({
      code: 'configuration',
      message: expect.stringContaining('Set that address as `url`'),
    });
    expect(elsewhere.requests).toBe(0);
  });

  it('without TLS, although the URL wants it: nothing was sent', async () => {
    const secure = open({ url: server.url.replace('http:', 'libsql:'), timeout: 2000 });
    await expect(signIn(secure)).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining('Nothing was sent'),
    });
  });

  it('that never answers: the request ends at the deadline', async () => {
    const hole = await startFake();
    const deadline = new AbortController();
    const store = await openStore({ url: hole.url }, { env: () => undefined, timeoutMs: NEVER_MS });
    const reading = store.read('key', { signal: deadline.signal });
    await expect.poll(() => hole.requests).toBe(1);
    deadline.abort();
    // Without the signal, the request would hang longer than this test.
    await expect(reading).rejects.toThrow('aborted');
    expect(hole.requests).toBe(1);
  });

  it('that breaks the connection: a write is not sent again, and a read is', async () => {
    let requests = 0;
    const http = createServer((request) => {
      requests += 1;
      request.socket.destroy();
    });
    http.listen(0, '127.0.0.1');
    await once(http, 'listening');
    onTestFinished(() => void http.close());
    const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
    const broken = libsql({ url, timeout: 400 });
    await expect(signIn(broken)).rejects.toMatchObject({
      code: 'interrupted',
      message: expect.stringContaining('It may have been stored'),
    });
    expect(requests).toBe(1);
    await expect(broken.getItem(crypto.randomUUID())).rejects.toMatchObject({ code: 'unavailable' });
    expect(requests).toBeGreaterThan(2);
  });

  it.each<[status: number, body: string, code: string, advice: RegExp]>([
    [404, 'no such database', 'configuration', /no database at this URL/],
    [413, 'too large', 'invalid-data', /larger than the server accepts/],
    [429, 'slow down', 'refused', /busy, so nothing was stored/],
    [502, '<html>bad gateway</html>', 'interrupted', /may have been stored/],
  ])('that answers with the status %i', async (status, body, code, advice) => {
    const fake = await startFake({ status, body });
    const error: unknown = await signIn(libsql({ url: fake.url, authToken: 'secret-token', timeout: 300 })).catch(
      (thrown: unknown) => thrown,
    );
    expect(error).toMatchObject({ name: 'SessionDriverError', driver: 'session-libsql', code });
    expect(inspect(error)).toMatch(advice);
    expect(inspect(error)).not.toMatch(/secret-token|session:/);
  });

  it.each([
    ['wrong', 'wrong-token'],
    ['missing', undefined],
  ])('that finds the token %s', async (_name, authToken) => {
    const error: unknown = await libsql({ url: server.url, authToken })
      .getItem(crypto.randomUUID())
      .catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: 'configuration', message: expect.stringContaining('refuses the token') });
    expect(inspect(error)).not.toContain('wrong-token');
  });

  it('a corrupt record is an error, not a missing session, and its user can sign out', async () => {
    const cookie = await signIn();
    await server.query(`UPDATE coatcheck_sessions SET fields = '{"user":' WHERE fields IS NOT NULL`);
    const corrupt = 'The stored record is corrupt, or a newer version wrote it.';
    await expect(userOf(cookie)).rejects.toMatchObject({ code: 'refused', cause: { message: corrupt } });
    const writing = visit((session) => session.set('cart', 1), cookie);
    await expect(writing).rejects.toMatchObject({ code: 'refused', message: expect.stringContaining(corrupt) });
    await visit((session) => session.destroy(), cookie);
    expect(await userOf(cookie)).toBeUndefined();
  });
});

describe('the table', () => {
  it('is created again if it is dropped', async () => {
    const cookie = await signIn();
    await server.query('DROP TABLE coatcheck_sessions');
    expect(await userOf(cookie)).toBeUndefined();
    expect(await userOf(await signIn())).toBe('ada');
  });

  it('is not created with `createTable: false`, and the error names the command that prints its SQL', async () => {
    const manual = open({ table: 'visitors', createTable: false });
    const expected = {
      code: 'configuration',
      message: expect.stringMatching(/`visitors`.* is missing.*`npx @coatcheck\/session-libsql visitors` prints/),
    };
    await expect(manual.getItem(crypto.randomUUID())).rejects.toMatchObject(expected);
    await expect(signIn(manual)).rejects.toMatchObject(expected);
    const command = fileURLToPath(new URL('../dist/bin.js', import.meta.url));
    const printed = execFileSync(process.execPath, [command, 'visitors'], { encoding: 'utf8' });
    expect(printed).toBe(createTableSql('visitors'));
    for (const statement of printed.split(/;\n(?=.)/)) await server.query(statement);
    expect(await userOf(await signIn(manual), manual)).toBe('ada');
  });

  it('can have a name that looks like an error', async () => {
    const named = open({ table: 'auth_overloaded_timeout' });
    expect(await userOf(await signIn(named), named)).toBe('ada');
  });

  it('another table with this name, or a name with a schema, is a configuration error', async () => {
    await server.query('CREATE TABLE IF NOT EXISTS orders (id INTEGER)');
    for (const table of ['orders', 'app.sessions', 'sqlite_sessions']) {
      await expect(signIn(open({ table }))).rejects.toMatchObject({ code: 'configuration' });
    }
  });
});

it('a client of the app has the same sessions, and is not closed', async () => {
  const client = createClient(target());
  const cookie = await signIn();
  expect(await userOf(cookie, libsql({ client }))).toBe('ada');
  await visit((session) => session.destroy(), cookie, libsql({ client }));
  expect(await userOf(cookie)).toBeUndefined();
  expect(client.closed).toBe(false);
});

it('runs in a Worker', { timeout: 60_000 }, async () => {
  const bindings = { LIBSQL_URL: server.url, LIBSQL_AUTH_TOKEN: server.authToken };
  await using isolates = await startIsolates(new URL('workers/worker.ts', import.meta.url), 2, { bindings });
  const [one, other] = isolates.all;
  const first = await one!.fetch('/?set=user');
  expect(first).toMatchObject({ status: 200, text: '{}' });
  const cookie = first.headers.getSetCookie()[0]!.split(';')[0]!;
  await Promise.all(
    Array.from({ length: 64 }, (_, index) =>
      (index % 2 ? one : other)!.fetch(`/?set=key${index}`, { headers: { cookie } }),
    ),
  );
  const { text: stored } = await other!.fetch('/', { headers: { cookie } });
  expect(Object.keys(JSON.parse(stored))).toHaveLength(65);
});

describe('options', () => {
  it('libsqlDriver() validates them', () => {
    expect(libsqlDriver()).toMatchObject({ config: {} });
    expect(libsqlDriver({ url: 'libsql://shop.turso.io' })).toMatchObject({
      config: { url: 'libsql://shop.turso.io' },
    });
    // @ts-expect-error A client cannot be part of the build.
    expect(() => libsqlDriver({ client: {} })).toThrow('`client` is not an option');
    for (const url of ['file:a.db', 'file:/data/a.db', 'file:///data/a.db']) {
      expect(libsqlDriver({ url })).toMatchObject({ config: { url } });
    }
    for (const url of ['file:', 'file::memory:', 'file:a.db?mode=ro', 'file://host/a.db', 'file:a.db#b']) {
      expect(() => libsqlDriver({ url })).toThrow('`url`: expected the URL of a file, such as file:/data/sessions.db');
    }
    for (const url of [
      'a.db',
      'redis://a',
      'libsql://a?authToken=x',
      'ws://a',
      'libsql://a ',
      'libsql://a\n',
      'http:a',
      'libsql:a',
      'libsql://',
      'http://a/%zz',
      'http://a#',
    ]) {
      expect(() => libsqlDriver({ url })).toThrow('`url`: expected a URL that starts with libsql://');
    }
  });

  it('are read from the variables when the server runs, each token for its own URL', async () => {
    const { url, authToken } = server;
    const read = (variables: Record<string, string>, config: LibsqlRuntimeConfig = {}) =>
      libsql(config, { env: (name) => variables[name] }).getItem(crypto.randomUUID());
    expect(await read({ LIBSQL_URL: url, LIBSQL_AUTH_TOKEN: authToken })).toBeNull();
    expect(await read({ TURSO_DATABASE_URL: url, TURSO_AUTH_TOKEN: authToken })).toBeNull();
    expect(await read({ TURSO_AUTH_TOKEN: authToken }, { url })).toBeNull();
    await expect(read({ LIBSQL_URL: url, TURSO_AUTH_TOKEN: authToken })).rejects.toThrow('refuses the token');
    const both = { LIBSQL_URL: 'libsql://other.test', LIBSQL_AUTH_TOKEN: 'other', TURSO_DATABASE_URL: url };
    expect(await read({ ...both, TURSO_AUTH_TOKEN: authToken }, { url })).toBeNull();
    await expect(read({ ...both, LIBSQL_AUTH_TOKEN: authToken }, { url })).rejects.toThrow('refuses the token');
    await expect(read({})).rejects.toThrow('LIBSQL_URL (or TURSO_DATABASE_URL) is not set');
    await expect(read({ LIBSQL_URL: url, LIBSQL_AUTH_TOKEN: 'to ken' })).rejects.toThrow('LIBSQL_AUTH_TOKEN: expected');
  });

  it('the driver without Astro validates them', async () => {
    const client = createClient(target());
    await expect(open({ client }).getItem(crypto.randomUUID())).rejects.toThrow('With `client`, leave out `url`');
    const wrong = libsql({ client: {} as never }).getItem(crypto.randomUUID());
    await expect(wrong).rejects.toThrow('expected a client of @libsql/client, with the methods execute, batch');
  });
});
