import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { createSessions } from '@coatcheck/session-core';
import { createTableSql, sweep } from '@coatcheck/session-postgres';
import postgres from '@coatcheck/session-postgres/runtime';
import { moveClock } from '@coatcheck/test-support/clock';
import { call, change, newKey } from '@coatcheck/test-support/stores';
import { describe, expect, it } from 'vitest';
import { README_PRIVILEGES } from './support/readme.ts';
import { newDatabase, openClient, openStore, sql } from './support/store.ts';

const fields = new Map([['a', ':1']]);
const repeat = <Result>(count: number, work: (index: number) => Result): Result[] =>
  Array.from({ length: count }, (_, index) => work(index));
const nameOf = (url: string): string => new URL(url).pathname.slice(1);
const asUser = (url: string, user: string): string => url.replace('postgres@', `${user}@`);

describe('the table', () => {
  it.each(['read committed', 'serializable'])(
    'is created once by many processes that start at the same time, under %s',
    async (isolation) => {
      const url = await newDatabase();
      await sql(url, `ALTER DATABASE ${nameOf(url)} SET default_transaction_isolation = '${isolation}'`);
      const stores = await Promise.all(repeat(12, () => openStore({ url })));
      const keys = stores.map(() => newKey());
      const results = await Promise.all(
        stores.map((store, index) => store.patch(keys[index]!, change({ set: fields }), call())),
      );
      expect(results).toEqual(stores.map(() => 'applied'));
      for (const key of keys) expect(await stores[0]!.read(key, call())).toEqual(fields);
    },
  );

  it('can have a schema, and upper-case letters', async () => {
    const url = await newDatabase();
    await sql(url, 'CREATE SCHEMA "App"');
    const store = await openStore({ url, table: 'App.UserSessions' });
    const key = newKey();
    await store.patch(key, change({ set: fields }), call());
    expect(await store.destroy(key, 1000, call())).toEqual(fields);
    expect(await sql(url, 'SELECT key FROM "App"."UserSessions"')).toEqual([{ key }]);
    expect(await sql(url, `SELECT tablename FROM pg_tables WHERE schemaname = 'public'`)).toEqual([]);
  });

  it('can be created by a migration, from the command of the package', async () => {
    const url = await newDatabase();
    const store = await openStore({ url, table: 'visits', createTable: false });
    await expect(store.read(newKey(), call())).rejects.toMatchObject({
      code: 'configuration',
      message: expect.stringMatching(/The table `visits`.* is missing.*`npx @coatcheck\/session-postgres visits`/),
    });
    const run = promisify(execFile);
    const bin = fileURLToPath(new URL('../dist/bin.js', import.meta.url));
    const { stdout } = await run(process.execPath, [bin, 'visits']);
    expect(stdout).toBe(createTableSql('visits'));
    // Twice: a migration can run it again.
    for (const statements of [stdout, stdout]) await sql(url, statements);
    expect(await store.patch(newKey(), change({ set: fields }), call())).toBe('applied');
    await expect(run(process.execPath, [bin, 'no table'])).rejects.toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/expected the name/),
    });
  });

  it('keeps its sessions when a new version adds its functions', async () => {
    const url = await newDatabase();
    const store = await openStore({ url });
    const key = newKey();
    await store.patch(key, change({ set: fields }), call());
    // As an older version left it.
    await sql(
      url,
      'DROP FUNCTION coatcheck_sessions_patch_2; CREATE FUNCTION coatcheck_sessions_patch_0() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$',
    );
    expect(await store.patch(key, change({ set: new Map([['b', ':2']]) }), call())).toBe('applied');
    expect(await store.read(key, call())).toEqual(
      new Map([
        ['a', ':1'],
        ['b', ':2'],
      ]),
    );
    expect(await sql(url, 'SELECT coatcheck_sessions_patch_0() AS one')).toEqual([{ one: 1 }]);
  });

  it('is found wherever `search_path` leads', async () => {
    const url = await newDatabase();
    await (await openStore({ url })).patch('early', change({ set: fields }), call());
    const user = `path_${nameOf(url)}`;
    await sql(
      url,
      `CREATE ROLE ${user} LOGIN; CREATE SCHEMA ${user} AUTHORIZATION ${user}; GRANT SELECT, INSERT, UPDATE, DELETE ON coatcheck_sessions TO ${user}`,
    );
    const store = await openStore({ url: asUser(url, user) });
    expect(await store.read('early', call())).toEqual(fields);
    expect(await store.patch('early', change({ set: fields }), call())).toBe('applied');
    expect(await sql(url, `SELECT schemaname FROM pg_tables WHERE tablename = 'coatcheck_sessions'`)).toEqual([
      { schemaname: 'public' },
    ]);
  });

  it('takes sessions of several megabytes', async () => {
    const store = await openStore({ url: await newDatabase() });
    const large = new Map(repeat(4, (index) => [`part${index}`, `:"${'é'.repeat(500_000)}"`]));
    await store.patch('large', change({ set: large }), call());
    await store.patch('large', change({ set: fields }), call());
    expect(await store.read('large', call())).toEqual(new Map([...large, ...fields]));
  });
});

it('a session that cannot be read can be destroyed', async () => {
  const url = await newDatabase();
  const store = await openStore({ url });
  for (const corrupt of ['[]', '5', '"text"', '{"a":5}']) {
    const key = newKey();
    await store.patch(key, change({ set: fields }), call());
    await sql(url, 'UPDATE coatcheck_sessions SET fields = $1 WHERE key = $2', [corrupt, key]);
    await expect(store.read(key, call())).rejects.toThrow('corrupt');
    expect(await store.destroy(key, 60_000, call())).toBeNull();
    expect(await store.patch(key, change({ set: fields }), call())).toBe('destroyed');
  }
});

describe('a user of PostgreSQL', () => {
  const newUser = async (url: string): Promise<string> => {
    const user = `user_${nameOf(url)}`;
    await sql(url, `CREATE ROLE ${user} LOGIN`);
    return user;
  };

  it('needs no more privileges than the README lists', async () => {
    const url = await newDatabase();
    const user = await newUser(url);
    await sql(url, createTableSql() + README_PRIVILEGES.replaceAll('sessions_user', user));
    const store = await openStore({ url: asUser(url, user), createTable: false });
    const key = newKey();
    expect(await store.patch(key, change({ set: fields }), call())).toBe('applied');
    expect(await store.read(key, { ...call(), extendIdleMs: 1000 })).toEqual(fields);
    expect(await store.destroy(key, -1_200_000, call())).toEqual(fields);
    expect(await store.sweep!(10, call())).toBe(1);
  });

  it.each(['SELECT', 'INSERT', 'UPDATE', 'DELETE'])('needs %s', async (privilege) => {
    const url = await newDatabase();
    const user = await newUser(url);
    await sql(url, createTableSql() + README_PRIVILEGES.replaceAll('sessions_user', user));
    await sql(url, `REVOKE ${privilege} ON coatcheck_sessions FROM ${user}`);
    const store = await openStore({ url: asUser(url, user) });
    const work = async () => {
      await store.patch('key', change({ set: fields }), call());
      await store.read('key', { ...call(), extendIdleMs: 1000 });
      await store.sweep!(1, call());
    };
    await expect(work()).rejects.toMatchObject({
      code: 'configuration',
      message: expect.stringMatching(/lacks privileges/),
    });
  });

  it('who may not create the missing table gets an error that says so, and can go on when it is there', async () => {
    const url = await newDatabase();
    const user = await newUser(url);
    const store = await openStore({ url: asUser(url, user) });
    await expect(store.read('key', call())).rejects.toMatchObject({
      code: 'configuration',
      message: expect.stringMatching(/may not create the missing table/),
    });
    await sql(url, createTableSql() + README_PRIVILEGES.replaceAll('sessions_user', user));
    expect(await store.patch('key', change({ set: fields }), call())).toBe('applied');
  });
});

describe('a sweep', () => {
  // In an earlier period of ten minutes: a sweep removes whole periods.
  const expired = { set: fields, lifetimeMs: -1_200_000, defaultTtlMs: -1_200_000 };
  const count = async (url: string): Promise<unknown> =>
    (await sql(url, 'SELECT count(*)::int AS count FROM coatcheck_sessions'))[0]!['count'];

  it('runs by itself after a write, at most once a minute', async () => {
    const url = await newDatabase();
    const store = await openStore({ url });
    await Promise.all(repeat(5, () => store.patch(newKey(), change(expired), call())));
    await store.patch('live', change({ set: fields }), call());
    expect(await count(url)).toBe(6);
    moveClock(61_000);
    await store.patch('live', change({ set: fields }), call());
    await expect.poll(() => count(url)).toBe(1);
    await store.patch(newKey(), change(expired), call());
    await store.patch('live', change({ set: fields }), call());
    expect(await count(url)).toBe(2);
  });

  it('can be a job', async () => {
    const url = await newDatabase();
    const driver = postgres({ url });
    const session = createSessions({ driver }).open('');
    session.set('user', 'ada');
    await session.commit();
    expect(await sweep(driver)).toBe(0);
    await sql(url, 'UPDATE coatcheck_sessions SET until = 0');
    expect(await sweep(driver)).toBe(1);
    expect(await count(url)).toBe(0);
  });

  it('leaves records alone that a transaction has locked', async () => {
    const url = await newDatabase();
    const store = await openStore({ url });
    await store.patch('locked', change(expired), call());
    await store.patch('other', change(expired), call());
    const blocker = await openClient(url);
    await blocker.query(`BEGIN; SELECT FROM coatcheck_sessions WHERE key = 'locked' FOR UPDATE`);
    expect(await store.sweep!(10, call())).toBe(1);
    await blocker.query('COMMIT');
    expect(await store.sweep!(10, call())).toBe(1);
  });

  it('finds expired records by the index, and touches do not write to it', async () => {
    const url = await newDatabase();
    const store = await openStore({ url });
    await store.patch('touched', change({ set: fields, idleMs: 1_800_000 }), call());
    for (let touch = 0; touch < 50; touch++) await store.read('touched', { ...call(), extendIdleMs: 1_800_000 });
    // Its connection reports to the statistics when it ends.
    await store.close!();
    const hot = `SELECT n_tup_upd::int AS updates, n_tup_hot_upd::int AS hot FROM pg_stat_user_tables`;
    await expect.poll(async () => (await sql(url, hot))[0]!['updates']).toBe(50);
    // Not the one in whose middle another ten minutes begin.
    expect((await sql(url, hot))[0]!['hot']).toBeGreaterThanOrEqual(49);

    await sql(
      url,
      `INSERT INTO coatcheck_sessions (key, until, expires, fields) SELECT 'key' || n, 8640000000000000, 8640000000000000, '{}' FROM generate_series(1, 20000) n; ANALYZE`,
    );
    const client = await openClient(url);
    await client.query(`LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET client_min_messages = log`);
    const plans: string[] = [];
    client.on('notice', ({ message }) => plans.push(String(message)));
    const watched = await openStore({ client });
    expect(await watched.sweep!(10, call())).toBe(0);
    expect(plans.join()).toMatch(/Index Scan using coatcheck_sessions_bucket/);
    expect(plans.join()).not.toMatch(/Seq Scan/);
  });
});
