import { execFileSync, spawnSync } from 'node:child_process';
import { readdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { inspect } from 'node:util';
import type { D1Database } from '@cloudflare/workers-types';
import { sweep, type Session } from '@coatcheck/session-core';
import type { SessionDriver } from '@coatcheck/session-core/driver';
import { createTableSql, d1Driver } from '@coatcheck/session-d1';
import d1 from '@coatcheck/session-d1/runtime';
import { newFolder } from '@coatcheck/test-support/folder';
import { visitsOn } from '@coatcheck/test-support/visits';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { D1RuntimeConfig } from '../src/options.ts';
import { counted, type Counted, type Usage } from './support/counted.ts';
import { startD1, type D1 } from './support/d1.ts';

let d1s: D1;
let database: D1Database;
let d: Counted;
let driver: SessionDriver;

beforeAll(async () => {
  d1s = await startD1('DB', 'OTHER');
  database = d1s.databases['DB']!;
}, 60_000);
afterAll(() => d1s?.[Symbol.asyncDispose]());
beforeEach(async () => {
  await database.exec('DROP TABLE IF EXISTS coatcheck_sessions');
  d = counted(database);
  driver = d1({ client: d.client });
});

const { visit, signIn, userOf } = visitsOn(() => driver);
const rows = async (): Promise<Record<string, unknown>[]> =>
  (await database.prepare('SELECT * FROM coatcheck_sessions').all()).results;

/** The clock of the database cannot be moved, so the records are made older. */
const pass = (ms: number): Promise<unknown> =>
  database.exec(`UPDATE coatcheck_sessions SET until = until - ${ms}, bucket = (until - ${ms}) / 600000`);

describe('what an operation costs', () => {
  // Sessions that never expire. The expiry of others might move to the next period of ten minutes while a test runs.
  beforeEach(() => {
    driver = d1({ client: d.client, ttl: false });
  });

  it.each<[string, (cookie: string) => unknown, Usage]>([
    ['nothing is stored, and there is no session', () => visit((session) => session.get('user')), usage(0, 0, 0)],
    ['read', (cookie) => userOf(cookie), usage(1, 1, 0)],
    ['the first values of a new session', () => signIn(), usage(1, 18, 3)],
    ['set a value', (cookie) => visit((session) => session.set('cart', 1), cookie), usage(1, 27, 1)],
    [
      'set a value ten minutes after the last write',
      async (cookie) => {
        await pass(600_000);
        return visit((session) => session.set('cart', 1), cookie);
      },
      usage(1, 27, 3),
    ],
    [
      'read, and set the value that it has',
      (cookie) => visit(async (session) => session.set('user', await session.get('user')), cookie),
      usage(1, 1, 0),
    ],
    ['regenerate', (cookie) => visit((session) => session.regenerate(), cookie), usage(3, 22, 6)],
    ['destroy', (cookie) => visit((session) => session.destroy(), cookie), usage(1, 3, 3)],
  ])('%s', async (_name, act, expected) => {
    const cookie = await signIn();
    d.usage();
    await act(cookie);
    expect(d.usage()).toEqual(expected);
  });

  it('a read with `idleTtl` writes one row', async () => {
    // The idle limit is later than the expiry, so the record expires at the same time as before.
    const touching = d1({ client: d.client, idleTtl: 31_536_000 });
    const cookie = await signIn(touching);
    d.usage();
    await userOf(cookie, touching);
    expect(d.usage()).toEqual(usage(1, 3, 1));
  });

  it('a sweep is one statement, and removes what expired in earlier periods of ten minutes', async () => {
    driver = d1({ client: d.client });
    for (let index = 0; index < 5; index++) await signIn();
    await pass(31 * 86_400_000);
    const cookie = await signIn();
    d.usage();
    expect(await sweep(driver)).toBe(5);
    expect(d.usage()).toMatchObject({ calls: 1, rowsWritten: 5 });
    expect(await userOf(cookie)).toBe('ada');
  });

  function usage(calls: number, rowsRead: number, rowsWritten: number): Usage {
    return { calls, rowsRead, rowsWritten };
  }
});

describe('consistency', () => {
  it('a change is atomic: if its last statement fails, nothing is stored', async () => {
    const cookie = await signIn();
    const before = await rows();
    await database.exec(
      `CREATE TRIGGER broken BEFORE UPDATE OF bucket ON coatcheck_sessions BEGIN SELECT RAISE(ABORT, 'no'); END`,
    );
    // The first statement of each changes the record, and the next one its bucket.
    await expect(visit((session) => session.set('cart', 1, { ttl: 31_536_000 }), cookie)).rejects.toMatchObject({
      code: 'refused',
      operation: 'patch',
    });
    expect(await rows()).toEqual(before);
    await expect(visit((session) => session.destroy(), cookie)).rejects.toMatchObject({ operation: 'destroy' });
    expect(await rows()).toEqual(before);
    const touching = d1({ client: d.client, idleTtl: 60 });
    await expect(userOf(cookie, touching)).rejects.toMatchObject({ operation: 'read' });
    expect(await rows()).toEqual(before);
  });

  // The Sessions API is what makes D1 read from replicas. `withSession` of the client in this file throws an error.
  it('nothing is read from a replica', async () => {
    const cookie = await signIn();
    expect(await userOf(cookie)).toBe('ada');
    await visit((session) => session.destroy(), cookie);
    expect(await userOf(cookie)).toBeUndefined();
    const replica = database.withSession('first-unconstrained');
    await expect(d1({ client: replica }).getItem(crypto.randomUUID())).rejects.toMatchObject({
      code: 'configuration',
      message: expect.stringContaining('and not what its method `withSession` returns'),
    });
  });

  it('two databases, two tables and two prefixes do not see each other', async () => {
    const cookie = await signIn();
    const others: D1RuntimeConfig[] = [
      { client: d1s.databases['OTHER']! },
      { client: database, table: 'other' },
      { client: database, prefix: 'other:' },
    ];
    for (const config of others) expect(await userOf(cookie, d1(config))).toBeUndefined();
    expect(await userOf(cookie)).toBe('ada');
  });
});

describe('errors', () => {
  it.each<[message: string, code: string, advice: RegExp]>([
    ['D1_ERROR: D1 DB is overloaded. Requests queued for too long.', 'unavailable', /busy, so nothing was stored/],
    ['D1_ERROR: D1 DB is overloaded. Too many requests queued.', 'unavailable', /one query at a time/],
    ['D1_ERROR: Currently processing a long-running export.', 'unavailable', /an export\?/],
    [
      "D1_ERROR: Your account has exceeded D1's free tier daily row write limit. Upgrade to a paid plan or wait until tomorrow (midnight UTC) to continue.",
      'refused',
      /ends at midnight UTC/,
    ],
    ['D1_ERROR: Exceeded maximum DB size.', 'refused', /is full, so nothing was stored\. Reads still work/],
    [
      "D1_ERROR: Your account has exceeded D1's maximum account storage limit, please contact Cloudflare to raise your limit.",
      'refused',
      /is full/,
    ],
    ['Too many API requests by single worker invocation.', 'refused', /50 in the free plan/],
    ['D1_ERROR: something new: SQLITE_ERROR', 'refused', /something new|the cause/],
    ['D1_ERROR: something new', 'interrupted', /may have been stored/],
    ['fetch failed', 'interrupted', /may have been stored/],
    ['D1_ERROR: Failed to parse body as JSON, got: {"secret hat"', 'interrupted', /JSON, got: something else/],
  ])('%s', async (message, code, advice) => {
    const cookie = await signIn();
    const before = await rows();
    d.usage();
    d.behavior.failing = message;
    const error: unknown = await visit((session) => session.set('cart', 'secret hat'), cookie).catch(
      (thrown: unknown) => thrown,
    );
    expect(error).toMatchObject({ name: 'SessionDriverError', driver: 'session-d1', code, operation: 'patch' });
    expect(inspect(error)).toMatch(advice);
    expect(inspect(error)).not.toMatch(/secret hat|session:/);
    expect(inspect(error)).not.toContain(cookie.split('=')[1]);
    expect(d.usage().calls).toBe(1);
    d.behavior.failing = undefined;
    expect(await rows()).toEqual(before);
  });

  const BROKEN = [
    'D1_ERROR: Network connection lost.',
    'D1_ERROR: D1 DB reset because its code was updated.',
    'D1_ERROR: Internal error in D1 DB storage caused object to be reset.',
    'D1_ERROR: D1 DB storage operation exceeded timeout which caused object to be reset.',
    'D1_ERROR: Cannot resolve D1 DB due to transient issue on remote node.',
    'D1_ERROR: internal error; reference = 0a1b2c',
  ];

  it.each(BROKEN)('a write after which D1 answers "%s" is not sent again', async (message) => {
    const cookie = await signIn();
    for (const act of [(session: Session) => session.set('cart', 1), (session: Session) => session.destroy()]) {
      Object.assign(d.behavior, { failing: message, afterwards: true, times: 1 });
      d.usage();
      await expect(visit(act, cookie)).rejects.toMatchObject({
        code: 'interrupted',
        message: expect.stringContaining('It may have been stored'),
      });
      expect(d.usage().calls).toBe(1);
    }
  });

  it.each(BROKEN)('a read to which D1 answers "%s" is sent again, and is never a missing session', async (message) => {
    const cookie = await signIn();
    Object.assign(d.behavior, { failing: message, times: 2 });
    d.usage();
    expect(await userOf(cookie)).toBe('ada');
    expect(d.usage().calls).toBe(3);
    const impatient = d1({ client: d.client, timeout: 200 });
    Object.assign(d.behavior, { failing: message, times: Infinity });
    await expect(userOf(cookie, impatient)).rejects.toMatchObject({ code: 'unavailable', cause: { message } });
    d.behavior.failing = undefined;
    expect(await userOf(cookie)).toBe('ada');
  });

  it('a session that is larger than a row of D1 is refused, and the old one is kept', async () => {
    const cookie = await signIn();
    const size = (length: number) => visit((session) => session.set(`file${length}`, 'x'.repeat(length)), cookie);
    await size(1_900_000);
    await expect(size(2_000_000)).rejects.toMatchObject({
      code: 'invalid-data',
      message: expect.stringContaining('a row has at most 2 MB'),
    });
    expect(await userOf(cookie)).toBe('ada');
  });

  it('a corrupt record is an error, not a missing session, and its user can sign out', async () => {
    for (const text of ['', '{"user":', '[":1"]', '"text"', '{"user":1}', 'null']) {
      const cookie = await signIn();
      await database.prepare('UPDATE coatcheck_sessions SET fields = ? WHERE fields IS NOT NULL').bind(text).run();
      const corrupt = 'The stored record is corrupt, or a newer version wrote it.';
      await expect(userOf(cookie)).rejects.toMatchObject({ code: 'refused', cause: { message: corrupt } });
      await visit((session) => session.destroy(), cookie);
      expect(await userOf(cookie)).toBeUndefined();
    }
  });

  it.each(['{"user":', '[":1"]', '"text"', '5', '{"user":1}', '{"user":null}', 'null'])(
    'a corrupt record is not overwritten: %s',
    async (text) => {
      const cookie = await signIn();
      await database.prepare('UPDATE coatcheck_sessions SET fields = ? WHERE fields IS NOT NULL').bind(text).run();
      const error = await visit((session) => session.set('cart', 1), cookie).catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: 'refused' });
      expect(inspect(error)).toContain('The stored record is corrupt');
      expect((await rows()).map(({ fields }) => fields)).toEqual([text]);
    },
  );

  it('another table with this name, or a name with a schema, is a configuration error', async () => {
    const columns = 'until INTEGER, expires INTEGER, fields TEXT, bucket INTEGER';
    await database.exec('CREATE TABLE IF NOT EXISTS orders (id INTEGER)');
    await database.exec(`CREATE TABLE IF NOT EXISTS keyless (key TEXT, ${columns})`);
    await database.exec(`CREATE TABLE IF NOT EXISTS strict_one (key TEXT PRIMARY KEY, ${columns}, shop TEXT NOT NULL)`);
    await database.exec('CREATE VIEW IF NOT EXISTS seen AS SELECT * FROM keyless');
    for (const table of ['orders', 'keyless', 'strict_one', 'seen']) {
      await expect(signIn(d1({ client: database, table }))).rejects.toMatchObject({
        code: 'configuration',
        message: expect.stringContaining('Set `table` to another name'),
      });
    }
    for (const table of ['app.sessions', '_cf_sessions', 'sqlite_sessions']) {
      await expect(signIn(d1({ client: database, table }))).rejects.toMatchObject({ code: 'configuration' });
    }
  });
});

describe('the table', () => {
  it('is created again if it is dropped', async () => {
    const cookie = await signIn();
    await database.exec('DROP TABLE coatcheck_sessions');
    expect(await userOf(cookie)).toBeUndefined();
    expect(await userOf(await signIn())).toBe('ada');
  });

  it.each([
    'auth_overloaded_timeout',
    'row',
    'old',
    'new',
    'clock',
    'removed',
    'kept',
    'each',
    'expected',
    'fields',
    'key',
  ])('can have the name %s', async (table) => {
    const named = d1({ client: database, table });
    const cookie = await signIn(named);
    await visit((session) => session.set('cart', 1), cookie, named);
    expect(await userOf(cookie, named)).toBe('ada');
  });

  it('is not created with `createTable: false`, and the error names the command that prints its SQL', async () => {
    const manual = d1({ client: database, table: 'visitors', createTable: false });
    const expected = {
      code: 'configuration',
      message: expect.stringMatching(/`visitors`.* is missing.*`npx @coatcheck\/session-d1 visitors` prints/),
    };
    await expect(manual.getItem(crypto.randomUUID())).rejects.toMatchObject(expected);
    await expect(signIn(manual)).rejects.toMatchObject(expected);
    const printed = execFileSync(process.execPath, [command, 'visitors'], { encoding: 'utf8' });
    expect(printed).toBe(createTableSql('visitors'));
    for (const statement of printed.split(/;\n(?=.)/)) await database.prepare(statement).run();
    expect(await userOf(await signIn(manual), manual)).toBe('ada');
  });

  it('the command rejects a wrong name', () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [command, 'a"b'], { encoding: 'utf8' });
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
    expect(stderr).toMatch(/expected .*\nUsage: npx @coatcheck\/session-d1 \[table\]\n$/);
  });

  it('can be created by a migration of Wrangler, as the README shows', { timeout: 120_000 }, async () => {
    const cwd = newFolder();
    const config = join(cwd, 'wrangler.jsonc');
    const binding = { binding: 'DB', database_name: 'sessions', database_id: 'sessions' };
    writeFileSync(config, JSON.stringify({ name: 'site', compatibility_date: '2026-07-01', d1_databases: [binding] }));
    const wrangler = (...args: string[]): string => {
      const { PATH = '', HOME = '' } = process.env;
      const env = { PATH, HOME, CI: 'true', WRANGLER_SEND_METRICS: 'false' };
      const { stdout, stderr, status } = spawnSync(process.execPath, [wranglerBin, ...args], {
        cwd,
        env,
        encoding: 'utf8',
      });
      expect({ status, stderr }).toEqual({ status: 0, stderr });
      return stdout;
    };
    wrangler('d1', 'migrations', 'create', 'sessions', 'coatcheck_sessions');
    const [migration = ''] = readdirSync(join(cwd, 'migrations'));
    expect(migration).toBe('0001_coatcheck_sessions.sql');
    writeFileSync(join(cwd, 'migrations', migration), execFileSync(process.execPath, [command]));
    wrangler('d1', 'migrations', 'apply', 'sessions', '--local');
    expect(wrangler('d1', 'migrations', 'list', 'sessions', '--local')).toContain('No migrations to apply');

    const { getPlatformProxy } = await import('wrangler');
    const proxy = await getPlatformProxy<{ DB: D1Database }>({
      configPath: config,
      persist: { path: join(cwd, '.wrangler/state/v3') },
    });
    try {
      const migrated = d1({ client: proxy.env.DB, createTable: false });
      expect(await userOf(await signIn(migrated), migrated)).toBe('ada');
    } finally {
      await proxy.dispose();
    }
  });

  const command = fileURLToPath(new URL('../dist/bin.js', import.meta.url));
  const wranglerBin = join(dirname(createRequire(import.meta.url).resolve('wrangler/package.json')), 'bin/wrangler.js');
});

describe('options', () => {
  it('d1Driver() validates them', () => {
    expect(d1Driver()).toMatchObject({ config: {} });
    expect(d1Driver({ database: 'SHOP', table: 'visitors' })).toMatchObject({ config: { database: 'SHOP' } });
    // @ts-expect-error Astro's adapter overwrites an option of this name.
    expect(() => d1Driver({ binding: 'DB' })).toThrow('`binding` is not an option');
    // @ts-expect-error A database cannot be part of the build.
    expect(() => d1Driver({ client: {} })).toThrow('`client` is not an option');
    expect(() => d1Driver({ database: '' })).toThrow('`database`: expected a non-empty string');
    expect(() => d1Driver({ table: 'a-b' })).toThrow('`table`: expected the name of a table');
  });

  it('the driver without Astro validates them', async () => {
    const failing: [config: D1RuntimeConfig, message: RegExp][] = [
      [{ client: {} as never }, /`client`: expected a D1 database, such as `env\.DB`/],
      [{ client: database, database: 'DB' }, /Set `database` or `client`, not both/],
      [{}, /This is not a Cloudflare Worker/],
    ];
    for (const [config, message] of failing) {
      const expected = { code: 'configuration', message: expect.stringMatching(message) };
      await expect(d1(config).getItem(crypto.randomUUID())).rejects.toMatchObject(expected);
    }
  });
});
