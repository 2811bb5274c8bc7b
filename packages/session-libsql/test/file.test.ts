import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { createSessions } from '@coatcheck/session-core';
import type { SessionDriver } from '@coatcheck/session-core/driver';
import libsql from '@coatcheck/session-libsql/runtime';
import { newFolder } from '@coatcheck/test-support/folder';
import { visitsOn } from '@coatcheck/test-support/visits';
import { startIsolates } from '@coatcheck/test-support/isolates';
import { call, newKey } from '@coatcheck/test-support/stores';
import { createClient, type Client } from '@libsql/client';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import type { LibsqlRuntimeConfig } from '../src/options.ts';
import { openStore } from '../src/store.ts';

/** A timeout that is longer than the time limit of a test. */
const NEVER_MS = 600_000;

let url: string;
let driver: SessionDriver;
beforeEach(() => {
  url = pathToFileURL(join(newFolder(), 'sessions.db')).href;
  driver = open();
});

const open = (config: LibsqlRuntimeConfig = {}): SessionDriver => libsql({ url, ...config });

const { visit, signIn, userOf } = visitsOn(() => driver);

/** Another connection to the file. Not of `node:sqlite`: two copies of SQLite in one process do not see each other's locks. */
function connect(): Client {
  const client = createClient({ url });
  onTestFinished(() => client.close());
  return client;
}

it('64 writers in each of two processes lose no updates', { timeout: 60_000 }, async () => {
  const key = newKey();
  const script = fileURLToPath(new URL('support/writer.ts', import.meta.url));
  const outputs = await Promise.all(
    ['one', 'other'].map((name) => {
      const args = ['--no-warnings', script, url, '', key, name, '64'];
      const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
      return text(child.stdout);
    }),
  );
  const acknowledged = outputs.flatMap((output) => output.trim().split('\n'));
  const store = await openStore({ url }, { env: () => undefined, timeoutMs: NEVER_MS });
  const stored = [...(await store.read(key, call()))!.keys()].map((name) => `applied ${name}`);
  expect(stored).toHaveLength(128);
  expect(new Set(acknowledged)).toEqual(new Set(stored));
});

describe('while another connection has the lock', () => {
  it('a write waits for it, and reads go on', async () => {
    const cookie = await signIn();
    const transaction = await connect().transaction('write');
    const patient = open({ timeout: NEVER_MS });
    const writing = visit((session) => session.set('cart', 1), cookie, patient);
    const impatient = visit((session) => session.set('cart', 2), cookie, open({ timeout: 200 }));
    await expect(impatient).rejects.toMatchObject({ code: 'refused', message: expect.stringContaining('is busy') });
    expect(await userOf(cookie, patient)).toBe('ada');
    await transaction.commit();
    await writing;
    expect(await createSessions({ driver }).open(cookie).get('cart')).toBe(1);
  });

  it('a read afterwards is not older than what it has stored', async () => {
    const cookie = await signIn();
    const transaction = await connect().transaction('write');
    const impatient = open({ timeout: 200 });
    await expect(visit((session) => session.set('cart', 1), cookie, impatient)).rejects.toThrow('is busy');
    expect(await userOf(cookie, impatient)).toBe('ada');
    await transaction.execute('UPDATE coatcheck_sessions SET fields = NULL');
    await transaction.commit();
    expect(await userOf(cookie, impatient)).toBeUndefined();
    expect(await userOf(await signIn(impatient), impatient)).toBe('ada');
  });
});

it('readers and a writer do not wait for each other', async () => {
  await signIn();
  const { rows } = await connect().execute('PRAGMA journal_mode');
  expect(rows[0]).toMatchObject({ journal_mode: 'wal' });
});

it('a change is atomic: if its last statement fails, nothing is stored', async () => {
  const cookie = await signIn();
  const client = connect();
  const rows = async () => (await client.execute('SELECT * FROM coatcheck_sessions')).rows;
  const before = await rows();
  await client.execute(
    `CREATE TRIGGER broken BEFORE UPDATE OF bucket ON coatcheck_sessions BEGIN SELECT RAISE(ABORT, 'no'); END`,
  );
  const writing = visit((session) => session.set('cart', 1, { ttl: 31_536_000 }), cookie);
  await expect(writing).rejects.toMatchObject({ code: 'refused', operation: 'patch' });
  expect(await rows()).toEqual(before);
});

it('its URL can come from the environment, and a token is not used', async () => {
  const cookie = await signIn();
  const variables: Record<string, string> = { TURSO_DATABASE_URL: url, TURSO_AUTH_TOKEN: 'token' };
  expect(await userOf(cookie, libsql({}, { env: (name) => variables[name] }))).toBe('ada');
});

it('a path may have spaces, and letters of any language', async () => {
  url = pathToFileURL(join(newFolder(), 'größe 100%.db')).href;
  expect(await userOf(await signIn(open()), open({ timeout: 4000 }))).toBe('ada');
});

it('a file that cannot be opened is a configuration error', async () => {
  const noDatabase = join(newFolder(), 'text.db');
  writeFileSync(noDatabase, 'text '.repeat(1000));
  for (const path of [join(newFolder(), 'missing/sessions.db'), newFolder(), noDatabase]) {
    await expect(signIn(open({ url: pathToFileURL(path).href }))).rejects.toMatchObject({
      code: 'configuration',
      message: expect.stringContaining('The file cannot be opened'),
    });
  }
});

it('a Worker has no files', { timeout: 60_000 }, async () => {
  const bindings = { LIBSQL_URL: 'file:/sessions.db', LIBSQL_AUTH_TOKEN: 'token' };
  await using isolates = await startIsolates(new URL('workers/worker.ts', import.meta.url), 1, { bindings });
  expect(await isolates.all[0]!.fetch('/?set=user')).toMatchObject({
    status: 500,
    text: expect.stringMatching(/A file needs native code.* Set `url` to that of a server/),
  });
});
