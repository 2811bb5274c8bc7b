import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { backup, DatabaseSync } from 'node:sqlite';
import { fileURLToPath } from 'node:url';
import { inspect } from 'node:util';
import { createSessions, sweep } from '@coatcheck/session-core';
import { legacyKey, recordKey, type SessionDriver } from '@coatcheck/session-core/driver';
import { createTableSql, sqliteDriver } from '@coatcheck/session-sqlite';
import sqlite from '@coatcheck/session-sqlite/runtime';
import { moveClock } from '@coatcheck/test-support/clock';
import { newFolder } from '@coatcheck/test-support/folder';
import { canMount, onFullDisk, type Limit } from '@coatcheck/test-support/full-disk';
import { collectGarbage } from '@coatcheck/test-support/garbage';
import { call, change, newKey } from '@coatcheck/test-support/stores';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { SqliteRuntimeConfig } from '../src/options.ts';
import { openStore } from '../src/store.ts';

/** A timeout that is longer than the time limit of a test. */
const NEVER_MS = 600_000;

const newFile = (): string => join(newFolder(), 'sessions.db');

/** Opens a file past the driver. */
function connect(file: string): DatabaseSync {
  const database = new DatabaseSync(file);
  onTestFinished(() => {
    if (database.isOpen) database.close();
  });
  return database;
}

async function open(config: SqliteRuntimeConfig, timeoutMs = NEVER_MS) {
  const store = await openStore(config as never, { timeoutMs });
  onTestFinished(() => store.close?.());
  return store;
}

const setting = (name: string, value = ':1') => change({ set: new Map([[name, value]]) });

/** Sets values in a session, and returns its cookie. */
async function visit(driver: SessionDriver, values: Record<string, unknown>, cookie = ''): Promise<string> {
  const session = createSessions({ driver }).open(cookie);
  for (const [key, value] of Object.entries(values)) session.set(key, value);
  return (await session.commit())?.split(';')[0] ?? cookie;
}

const valueIn = (driver: SessionDriver, cookie: string, key = 'user'): Promise<unknown> =>
  createSessions({ driver }).open(cookie).get(key);

const rowsIn = (file: string, table = 'coatcheck_sessions'): number => {
  const [row] = connect(file).prepare(`SELECT count(*) AS count FROM ${table}`).all();
  return row!['count'] as number;
};

describe('the files', () => {
  it('are readable only by their owner, as is their directory', async () => {
    const directory = join(newFolder(), 'made', 'here');
    const before = process.umask(0);
    await visit(sqlite({ file: join(directory, 'sessions.db') }), { user: 'ada' });
    process.umask(before);
    expect(readdirSync(directory).sort()).toEqual(['sessions.db', 'sessions.db-shm', 'sessions.db-wal']);
    for (const name of readdirSync(directory)) expect(statSync(join(directory, name)).mode & 0o777).toBe(0o600);
    for (const folder of [directory, join(directory, '..')]) expect(statSync(folder).mode & 0o777).toBe(0o700);
  });

  it('contain the hash of a session id, and not the id', async () => {
    const file = newFile();
    const cookie = await visit(sqlite({ file }), { user: 'ada' });
    const [row] = connect(file).prepare('SELECT * FROM coatcheck_sessions').all();
    const [, id = ''] = cookie.split('=');
    expect(row).toMatchObject({ key: await recordKey(id) });
    expect(JSON.parse(String(row!['fields']))).toMatchObject({ user: ':["ada"]' });
    expect(JSON.stringify(row)).not.toContain(id);
  });

  it('stay correct if the server has opened the file twice, and another process opens and closes it', async () => {
    const file = newFile();
    const driver = sqlite({ file });
    const cookie = await visit(driver, { user: 'ada' });
    // Closing a file would remove the locks that this process has on it. Then the other process would remove the files of this one.
    await visit(sqlite({ file, timeout: 4000 }), { user: 'bob' });
    const script = `new (require('node:sqlite').DatabaseSync)(process.argv[1]).exec('SELECT * FROM coatcheck_sessions')`;
    execFileSync(process.execPath, ['--no-warnings', '-e', script, file]);
    expect(existsSync(`${file}-wal`)).toBe(true);
    await visit(driver, { cart: 1 }, cookie);
    const [row] = connect(file).prepare(`SELECT fields FROM coatcheck_sessions WHERE fields LIKE '%cart%'`).all();
    expect(row).toBeDefined();
  });

  it.each([
    ['the directory is', (file: string) => rmSync(join(file, '..'), { recursive: true })],
    ['only the file itself is', (file: string) => rmSync(file)],
  ])('are created again if %s removed while the server runs', async (_name, remove) => {
    const file = newFile();
    const drivers = [sqlite({ file }), sqlite({ file, timeout: 4000 })];
    const cookie = await visit(drivers[0]!, { user: 'ada' });
    expect(await valueIn(drivers[1]!, cookie)).toBe('ada');
    remove(file);
    // The driver checks once a second.
    moveClock(1000);
    expect(await valueIn(drivers[1]!, cookie)).toBeUndefined();
    const next = await visit(drivers[0]!, { user: 'bob' });
    expect(await valueIn(drivers[1]!, next)).toBe('bob');
    expect(rowsIn(file)).toBe(1);
    expect(connect(file).prepare('PRAGMA integrity_check').all()).toEqual([{ integrity_check: 'ok' }]);
  });

  it('are created again if only the file itself is removed while another process has it open', async () => {
    const file = newFile();
    const driver = sqlite({ file });
    await visit(driver, { user: 'ada' });
    const script = `const database = new (require('node:sqlite').DatabaseSync)(process.argv[1]);
      database.exec('UPDATE coatcheck_sessions SET expires = expires + 1');
      console.log('open');
      process.stdin.resume();`;
    const other = spawn(process.execPath, ['--no-warnings', '-e', script, file], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    await once(other.stdout, 'data');
    rmSync(file);
    moveClock(1000);
    const cookies = [];
    for (let index = 0; index < 20; index++) cookies.push(await visit(driver, { user: index }));
    other.kill('SIGKILL');
    await once(other, 'exit');
    for (const [index, cookie] of cookies.entries()) expect(await valueIn(driver, cookie)).toBe(index);
    expect(rowsIn(file)).toBe(20);
    expect(connect(file).prepare('PRAGMA integrity_check').all()).toEqual([{ integrity_check: 'ok' }]);
  });

  it('are opened again if the file is replaced by another one', async () => {
    const [file, other] = [newFile(), newFile()];
    const driver = sqlite({ file });
    const cookie = await visit(driver, { user: 'ada' });
    connect(file).exec(`VACUUM INTO '${other}'`);
    await visit(driver, { user: 'bob' }, cookie);
    for (const suffix of ['-wal', '-shm']) rmSync(file + suffix);
    renameSync(other, file);
    moveClock(1000);
    expect(await valueIn(driver, cookie)).toBe('ada');
  });

  it('are not opened again after the store was closed', async () => {
    const file = newFile();
    const store = await open({ file });
    await store.patch('key', setting('user'), call());
    await store.close!();
    rmSync(file);
    await expect(store.read('key', call())).rejects.toThrow('The database was closed.');
    expect(existsSync(file)).toBe(false);
  });
});

describe('a file that cannot be used', () => {
  it.each<[string, (file: string) => void, RegExp]>([
    ['is a directory', (file) => mkdirSync(file), /cannot be opened.* The file is .*sessions\.db\.$/],
    ['is not a database', (file) => writeFileSync(file, 'not a database'.repeat(100)), /not an SQLite database/],
    [
      'is in a file instead of a directory',
      (file) => (rmSync(join(file, '..'), { recursive: true }), writeFileSync(join(file, '..'), '')),
      /cannot be opened.* The file is .*sessions\.db \(E[A-Z]+\)\.$/,
    ],
  ])('causes an error if it %s, and works as soon as it is fixed', async (_name, spoil, message) => {
    const file = newFile();
    spoil(file);
    const driver = sqlite({ file });
    const expected = { driver: 'session-sqlite', code: 'configuration', message: expect.stringMatching(message) };
    await expect(driver.getItem(crypto.randomUUID())).rejects.toMatchObject({ ...expected, operation: 'read' });
    await expect(visit(driver, { user: 'ada' })).rejects.toMatchObject({ ...expected, operation: 'patch' });
    rmSync(existsSync(file) ? file : join(file, '..'), { recursive: true });
    await visit(driver, { user: 'ada' });
  });

  it.skipIf(process.platform !== 'linux')('causes an error where no directory can be created', async () => {
    await expect(sqlite({ file: '/proc/nowhere/sessions.db' }).getItem(crypto.randomUUID())).rejects.toMatchObject({
      code: 'configuration',
      message: expect.stringMatching(/cannot be opened.* The file is \/proc\/nowhere\/sessions\.db \(ENOENT\)\.$/),
    });
  });

  it('causes an error for writes if it is read-only, and reads go on', async () => {
    const file = newFile();
    const cookie = await visit(sqlite({ file }), { user: 'ada' });
    const driver = sqlite({ client: new DatabaseSync(file, { readOnly: true }) });
    await expect(visit(driver, { user: 'bob' }, cookie)).rejects.toMatchObject({
      code: 'refused',
      message: expect.stringContaining('read-only'),
    });
    expect(await valueIn(driver, cookie)).toBe('ada');
  });

  it('causes an error for a corrupt record, not a missing session, and its user can sign out', async () => {
    const file = newFile();
    const driver = sqlite({ file });
    for (const text of ['', '{"user":', '[":1"]', '"text"', '{"user":1}', 'null']) {
      const cookie = await visit(driver, { user: 'ada' });
      connect(file).prepare('UPDATE coatcheck_sessions SET fields = ? WHERE fields IS NOT NULL').run(text);
      const session = createSessions({ driver }).open(cookie);
      await expect(session.get('user')).rejects.toMatchObject({
        code: 'refused',
        cause: { message: 'The stored record is corrupt, or a newer version wrote it.' },
      });
      session.destroy();
      expect(await session.commit()).toContain('Max-Age=0');
      expect(await valueIn(driver, cookie)).toBeUndefined();
    }
  });
});

describe('locks', () => {
  it('of another process: a write waits without blocking the event loop, and reads go on', async () => {
    const file = newFile();
    const store = await open({ file });
    await store.patch('key', setting('user'), call());
    const blocker = connect(file);
    blocker.exec('BEGIN IMMEDIATE');
    let isDone = false;
    const writing = store.patch('key', setting('cart'), call()).then((result) => {
      isDone = true;
      return result;
    });
    for (let turn = 0; turn < 1000; turn++) {
      await new Promise(setImmediate);
      if (turn % 100 === 0) expect((await store.read('key', call()))!.has('cart')).toBe(false);
    }
    expect(isDone).toBe(false);
    blocker.exec('COMMIT');
    expect(await writing).toBe('applied');
  });

  it('that never end cause an error before the deadline, and reads go on', async () => {
    const file = newFile();
    const driver = sqlite({ file, timeout: 300 });
    const cookie = await visit(sqlite({ file }), { user: 'ada' });
    const blocker = connect(file);
    blocker.exec('BEGIN IMMEDIATE');
    const refused = {
      code: 'refused',
      message: expect.stringMatching(/has locked the database, so nothing was stored/),
    };
    await expect(visit(driver, { user: 'bob' }, cookie)).rejects.toMatchObject(refused);
    // The circuit breaker is closed.
    expect(await valueIn(driver, cookie)).toBe('ada');
    await expect(sweep(driver)).rejects.toMatchObject(refused);
    blocker.exec('ROLLBACK');
    await visit(driver, { user: 'bob' }, cookie);
    expect(await valueIn(driver, cookie)).toBe('bob');
  });

  it('of a process that is killed are gone', async () => {
    const file = newFile();
    const driver = sqlite({ file, timeout: NEVER_MS });
    const cookie = await visit(driver, { user: 'ada' });
    const script = `const database = new (require('node:sqlite').DatabaseSync)(process.argv[1]);
      database.exec("BEGIN IMMEDIATE; DELETE FROM coatcheck_sessions");
      setInterval(() => console.log('locked'), 10);`;
    const child = spawn(process.execPath, ['--no-warnings', '-e', script, file], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(child.stdout, 'data');
    const writing = visit(driver, { cart: 1 }, cookie);
    child.kill('SIGKILL');
    await writing;
    expect(await valueIn(driver, cookie)).toBe('ada');
  });

  it('of a transaction of the app on the same client: a write waits for its end, and does not become part of it', async () => {
    const client = connect(newFile());
    client.exec('CREATE TABLE orders (id INTEGER)');
    const driver = sqlite({ client, timeout: NEVER_MS });
    const cookie = await visit(driver, { user: 'ada' });
    client.exec('BEGIN; INSERT INTO orders VALUES (1)');
    const writing = visit(driver, { user: 'bob' }, cookie);
    for (let turn = 0; turn < 100; turn++) await new Promise(setImmediate);
    expect(await valueIn(driver, cookie)).toBe('ada');
    client.exec('ROLLBACK');
    await writing;
    expect(await valueIn(driver, cookie)).toBe('bob');
    expect(client.prepare('SELECT * FROM orders').all()).toEqual([]);

    client.exec('BEGIN; INSERT INTO orders VALUES (2)');
    const impatient = sqlite({ client, timeout: 300 });
    await expect(visit(impatient, { user: 'eve' }, cookie)).rejects.toMatchObject({ code: 'refused' });
    client.exec('COMMIT');
    expect(client.prepare('SELECT * FROM orders').all()).toEqual([{ id: 2 }]);
  });
});

describe('a full disk', () => {
  it('refuses writes and keeps what is stored, and writes work again when there is space', async () => {
    const client = connect(newFile());
    const driver = sqlite({ client });
    const cookie = await visit(driver, { user: 'ada' });
    client.exec('PRAGMA max_page_count = 8');
    await expect(visit(driver, { cart: 'x'.repeat(100_000) }, cookie)).rejects.toMatchObject({
      code: 'refused',
      message: expect.stringContaining('The disk is full, so nothing was stored'),
    });
    expect(await valueIn(driver, cookie)).toBe('ada');
    const session = createSessions({ driver }).open(cookie);
    session.destroy();
    expect(await session.commit()).toContain('Max-Age=0');
    client.exec('PRAGMA max_page_count = 1000');
    const next = await visit(driver, { cart: 'x'.repeat(100_000) });
    expect(await valueIn(driver, next, 'cart')).toHaveLength(100_000);
  });

  const runtime = new URL('../dist/runtime.js', import.meta.url).href;
  const run = (limit: Limit) => onFullDisk(runtime, (directory) => ({ file: join(directory, 'sessions.db') }), limit);
  const intact = 'the session is {"user":"ada"}';

  it('refuses a write if the file size is limited', () => {
    expect(run({ fileKb: 100 })).toEqual([
      expect.stringMatching(/^refused: \[session-sqlite\] The disk reports an error, so nothing was stored/),
      intact,
      'no file is left over',
    ]);
  });

  it('refuses writes if a real disk is full or read-only', ({ skip }) => {
    if (!canMount()) skip('this system does not allow `unshare -rm mount`');
    expect(run('disk')).toEqual([
      expect.stringMatching(/^configuration: \[session-sqlite\] .*must be a file in a directory that the process can/),
      expect.stringMatching(/^refused: \[session-sqlite\] The disk is full, so nothing was stored/),
      intact,
      'no file is left over',
      'with space again: {"user":"ada","cart":"x"}',
    ]);
  });
});

describe('a backup while the server runs', () => {
  it.each<[string, (file: string, copy: string) => unknown]>([
    [
      '`VACUUM INTO` in another process',
      async (file, copy) => {
        const script = `new (require('node:sqlite').DatabaseSync)(process.argv[1]).exec("VACUUM INTO '" + process.argv[2] + "'")`;
        const child = spawn(process.execPath, ['--no-warnings', '-e', script, file, copy], { stdio: 'inherit' });
        expect(await once(child, 'exit')).toEqual([0, null]);
      },
    ],
    ['`backup()` of node:sqlite', (file, copy) => backup(connect(file), copy, { rate: 1_000_000 })],
  ])('with %s contains every session that was stored before it, and delays no write', async (_name, makeBackup) => {
    const [file, copy] = [newFile(), newFile()];
    const store = await open({ file });
    const keys = Array.from({ length: 100 }, newKey);
    for (const key of keys) await store.patch(key, setting('text', `:${'x'.repeat(10_000)}`), call());
    let isRunning = true;
    const writing = (async () => {
      for (let index = 0; isRunning; index++) {
        expect(await store.patch(keys[index % keys.length]!, setting(`more${index}`), call())).toBe('applied');
        await new Promise(setImmediate);
      }
    })();
    await makeBackup(file, copy);
    isRunning = false;
    await writing;
    expect(connect(copy).prepare('PRAGMA integrity_check').all()).toEqual([{ integrity_check: 'ok' }]);
    const restored = await open({ file: copy });
    for (const key of keys) expect((await restored.read(key, call()))!.get('text')).toHaveLength(10_001);
  });
});

describe('sweeps', () => {
  const expiring = change({ set: new Map([['a', ':1']]), lifetimeMs: 1000, defaultTtlMs: 1000 });

  it('a write removes expired sessions, at most once a minute', async () => {
    const file = newFile();
    const earlier = await open({ file });
    for (let index = 0; index < 40; index++) await earlier.patch(newKey(), expiring, call());
    await earlier.destroy(newKey(), 1000, call());
    // Sweeps remove what expired in earlier periods of ten minutes.
    moveClock(600_000);
    const store = await open({ file });
    moveClock(30_000);
    await store.patch('soon', setting('a'), call());
    expect(rowsIn(file)).toBe(42);
    moveClock(31_000);
    await store.patch('late', setting('a'), call());
    await expect.poll(() => rowsIn(file)).toBe(2);
  });

  it.each([1.5, 0, -1, NaN])('`sweep` rejects the limit %j', async (limit) => {
    await expect(sweep(sqlite({ file: newFile() }), limit)).rejects.toThrow('a whole number of at least 1');
  });

  it('`sweep` removes up to 1000 expired sessions, and other operations go on meanwhile', async () => {
    const file = newFile();
    const driver = sqlite({ file });
    const cookie = await visit(driver, { user: 'ada' });
    connect(file).exec(
      `WITH RECURSIVE old (n) AS (SELECT 1 UNION SELECT n + 1 FROM old WHERE n < 1100)
       INSERT INTO coatcheck_sessions SELECT 'old' || n, n, n, '{}', 0 FROM old`,
    );
    let isSwept = false;
    const sweeping = sweep(driver).then((count) => {
      isSwept = true;
      return count;
    });
    expect(await valueIn(driver, cookie)).toBe('ada');
    await visit(driver, { user: 'bob' }, cookie);
    let turns = 0;
    for (; !isSwept; turns++) await new Promise(setImmediate);
    expect(turns).toBeGreaterThan(10);
    expect(await sweeping).toBe(1000);
    expect(await sweep(driver)).toBe(100);
    expect(await valueIn(driver, cookie)).toBe('bob');
  });
});

describe("legacy sessions of Astro's default driver", () => {
  const until = '2100-01-01';
  const payload = '[["Map",1,2],"user",{"data":3},"ada"]';

  it('are removed together with a copy in the table of `db0`, so a destroyed session does not come back', async () => {
    const [file, base, id] = [newFile(), newFolder(), crypto.randomUUID()];
    const driver = sqlite({ file, migrateFrom: { until, base } });
    const legacy = connect(file);
    legacy.exec('CREATE TABLE unstorage (key TEXT PRIMARY KEY, value TEXT)');
    legacy.prepare('INSERT INTO unstorage VALUES (?, ?)').run(legacyKey(id, base), payload);
    writeFileSync(join(base, id), payload);
    await driver.removeItem(id);
    expect(readdirSync(base)).toEqual([]);
    expect(rowsIn(file, 'unstorage')).toBe(0);
  });

  it('are not found in a directory of that name, which stays', async () => {
    const [base, id] = [newFolder(), crypto.randomUUID()];
    mkdirSync(join(base, id));
    const driver = sqlite({ file: newFile(), migrateFrom: { until, base } });
    expect(await driver.getItem(id)).toBeNull();
    await driver.removeItem(id);
    expect(readdirSync(base)).toEqual([id]);
  });

  it('are not migrated to a database of the app', async () => {
    const [base, id] = [newFolder(), crypto.randomUUID()];
    writeFileSync(join(base, id), payload);
    expect(await sqlite({ client: connect(newFile()), migrateFrom: { until, base } }).getItem(id)).toBeNull();
    expect(await sqlite({ file: newFile(), migrateFrom: { until, base } }).getItem(id)).not.toBeNull();
  });

  it('cause an error that names their directory, and not the session id, if it cannot be read', async () => {
    const [base, id] = [join(newFolder(), 'legacy'), crypto.randomUUID()];
    writeFileSync(base, '');
    const driver = sqlite({ file: newFile(), migrateFrom: { until, base } });
    const error: unknown = await driver.getItem(id).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ driver: 'session-sqlite', code: 'refused', operation: 'read' });
    expect(inspect(error)).toContain(`${base} (ENOTDIR)`);
    expect(inspect(error)).not.toContain(id);
  });
});

describe('the table', () => {
  it('is created again if it is dropped while the server runs', async () => {
    const file = newFile();
    const driver = sqlite({ file });
    const cookie = await visit(driver, { user: 'ada' });
    connect(file).exec('DROP TABLE coatcheck_sessions');
    expect(await valueIn(driver, cookie)).toBeUndefined();
    const next = await visit(driver, { user: 'bob' });
    expect(await valueIn(driver, next)).toBe('bob');
  });

  it('is not created with `createTable: false`, and the error names the command that prints its SQL', async () => {
    const file = newFile();
    const driver = sqlite({ file, table: 'visitors', createTable: false });
    const expected = {
      code: 'configuration',
      message: expect.stringMatching(/`visitors`.* is missing.*`npx @coatcheck\/session-sqlite visitors` prints/),
    };
    await expect(driver.getItem(crypto.randomUUID())).rejects.toMatchObject(expected);
    await expect(visit(driver, { user: 'ada' })).rejects.toMatchObject(expected);
    expect(connect(file).prepare('SELECT name FROM sqlite_master').all()).toEqual([]);
    // The command that the error names, as it is published.
    const command = fileURLToPath(new URL('../dist/bin.js', import.meta.url));
    const printed = execFileSync(process.execPath, [command, 'visitors'], { encoding: 'utf8' });
    expect(printed).toBe(createTableSql('visitors'));
    for (let time = 0; time < 2; time++) connect(file).exec(printed);
    const cookie = await visit(driver, { user: 'ada' });
    expect(await valueIn(driver, cookie)).toBe('ada');
  });

  it.each([['a table"; DROP TABLE orders'], ['--help'], ['one', 'two']])('the command rejects %j', (...args) => {
    const command = fileURLToPath(new URL('../dist/bin.js', import.meta.url));
    const { status, stdout, stderr } = spawnSync(process.execPath, [command, ...args], { encoding: 'utf8' });
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
    expect(stderr).toMatch(/expected .*\nUsage: npx @coatcheck\/session-sqlite \[table\]\n$/);
  });

  it('expired sessions are found by an index', async () => {
    const database = connect(newFile());
    database.exec(createTableSql());
    const plan = database.prepare('EXPLAIN QUERY PLAN SELECT rowid FROM coatcheck_sessions WHERE bucket < 1 LIMIT 16');
    expect(plan.all()).toMatchObject([
      { detail: expect.stringContaining('INDEX coatcheck_sessions_bucket (bucket<?)') },
    ]);
  });

  it('drivers with different tables in one file do not see each other', async () => {
    const file = newFile();
    const cookie = await visit(sqlite({ file, table: 'shop' }), { user: 'ada' });
    expect(await valueIn(sqlite({ file, table: 'blog' }), cookie)).toBeUndefined();
    expect(await valueIn(sqlite({ file, table: 'shop' }), cookie)).toBe('ada');
  });

  it('can be in a database that is attached to a client', async () => {
    const client = connect(newFile());
    client.exec(`ATTACH '${newFile()}' AS other`);
    const driver = sqlite({ client, table: 'other.sessions' });
    const cookie = await visit(driver, { user: 'ada' });
    expect(await valueIn(driver, cookie)).toBe('ada');
    expect(client.prepare('SELECT name FROM other.sqlite_master WHERE sql IS NOT NULL ORDER BY name').all()).toEqual([
      { name: 'sessions' },
      { name: 'sessions_bucket' },
    ]);
    await expect(visit(sqlite({ file: newFile(), table: 'other.sessions' }), { user: 'ada' })).rejects.toMatchObject({
      code: 'configuration',
      message: expect.stringContaining('`table` names a database that is not attached'),
    });
  });
});

describe('a client of the app', () => {
  it('keeps its settings, and is not closed', async () => {
    const client = connect(newFile());
    client.exec('PRAGMA busy_timeout = 77; PRAGMA synchronous = EXTRA');
    const settings = () =>
      ['journal_mode', 'busy_timeout', 'synchronous', 'secure_delete', 'foreign_keys'].map((name) =>
        client.prepare(`PRAGMA ${name}`).get(),
      );
    const before = settings();
    const store = await open({ client });
    await store.patch('key', setting('user'), call());
    expect(store.close).toBeUndefined();
    expect(settings()).toEqual(before);
    expect(before[0]).toEqual({ journal_mode: 'delete' });
  });

  it('may return rows as arrays and integers as BigInts', async () => {
    const client = new DatabaseSync(newFile(), { returnArrays: true, readBigInts: true });
    const driver = sqlite({ client, idleTtl: 60 });
    const cookie = await visit(driver, { user: 'ada' });
    await visit(driver, { cart: 1 }, cookie);
    expect(await valueIn(driver, cookie)).toBe('ada');
    expect(await sweep(driver)).toBe(0);
    for (let time = 0; time < 2; time++) {
      const session = createSessions({ driver }).open(cookie);
      session.destroy();
      await session.commit();
    }
    await visit(driver, { late: 1 }, cookie);
    expect(await valueIn(driver, cookie)).toBeUndefined();
  });

  it('that the app has closed causes an error, and works when it is open again', async () => {
    const client = connect(newFile());
    const driver = sqlite({ client });
    const cookie = await visit(driver, { user: 'ada' });
    expect(await valueIn(driver, cookie)).toBe('ada');
    client.close();
    const closed = { code: 'configuration', message: expect.stringContaining('The app has closed the database') };
    await expect(valueIn(driver, cookie)).rejects.toMatchObject(closed);
    await expect(visit(driver, { user: 'bob' }, cookie)).rejects.toMatchObject(closed);
    client.open();
    expect(await valueIn(driver, cookie)).toBe('ada');
  });

  it('is garbage-collected when nothing else refers to it', async () => {
    const clients: WeakRef<DatabaseSync>[] = [];
    const file = newFile();
    for (let index = 0; index < 50; index++) {
      const client = new DatabaseSync(file);
      clients.push(new WeakRef(client));
      await visit(sqlite({ client }), { user: 'ada' });
    }
    await collectGarbage();
    // The engine may still refer to the last ones.
    expect(clients.filter((client) => client.deref()).length).toBeLessThan(5);
  });
});

it('sqliteDriver() validates its options, and does not resolve the path', () => {
  expect(sqliteDriver()).toMatchObject({ config: {} });
  expect(sqliteDriver({ file: 'data/sessions.db' })).toMatchObject({ config: { file: 'data/sessions.db' } });
  // @ts-expect-error a wrong option is also a compile error
  expect(() => sqliteDriver({ path: 'data' })).toThrow(/`path` is not an option\. Options: prefix, .*, file, table/);
  // @ts-expect-error a database cannot be written into a build
  expect(() => sqliteDriver({ client: {} })).toThrow('`client` is not an option');
  expect(() => sqliteDriver({ file: '' })).toThrow('`file`: expected a non-empty string');
  expect(() => sqliteDriver({ file: ':memory:' })).toThrow('`file`: expected a file; to keep sessions in memory');
  expect(() => sqliteDriver({ file: 'file:a.db' })).toThrow("`file`: expected the path of a file, without 'file:'");
  for (const table of ['', '1a', 'a-b', 'a.b.c', 'a.', 'a"b', 'a'.repeat(41)]) {
    expect(() => sqliteDriver({ table })).toThrow('`table`: expected the name of a table');
  }
});

it('the driver without Astro validates its options', async () => {
  const client = connect(newFile());
  const failing: [config: SqliteRuntimeConfig, message: RegExp][] = [
    [{ client: {} as never }, /`client`: expected an open SQLite database, with the methods exec, prepare/],
    [{ client, file: newFile() }, /Set `file` or `client`, not both/],
  ];
  for (const [config, message] of failing) {
    const expected = { code: 'configuration', message: expect.stringMatching(message) };
    await expect(sqlite(config).getItem(crypto.randomUUID())).rejects.toMatchObject(expected);
  }
});
