import { fromEnv, postgresDriver, type PostgresDriverConfig } from '@coatcheck/session-postgres';
import { describe, expect, it } from 'vitest';
import { targetOf } from '../src/target.ts';

const target = (config: PostgresDriverConfig, env: Record<string, string> = {}) =>
  targetOf(config as never, (name) => env[name]);

describe('where PostgreSQL is', () => {
  it('the option says, or DATABASE_URL, or the variables of libpq', () => {
    const env = { DATABASE_URL: 'postgres://ada:p%40ss@there/shop', PGHOST: '/run/postgresql', PGPORT: '7' };
    expect(target({ url: 'postgresql://here' }, env)).toEqual({ connectionString: 'postgresql://here', max: 10 });
    expect(target({}, env)).toEqual({ connectionString: env.DATABASE_URL, max: 10 });
    expect(target({ maxConnections: 3 }, { ...env, DATABASE_URL: '' })).toEqual({
      host: '/run/postgresql',
      port: '7',
      max: 3,
    });
  });

  it('nobody says: the error names the variable and the option', () => {
    expect(() => target({})).toThrow(/DATABASE_URL.*`url`/);
  });

  it.each([
    'postgres://ada:p@ss/word@host/shop',
    'postgres://ada:12/34@host/shop',
    'postgres://ada:12#34@host/shop',
    'postgres://ada:%zz@host/shop',
    'mysql://host/shop',
    'host=localhost',
    '',
  ])('a URL that no client would read as it was meant is refused, and not quoted: %s', (url) => {
    for (const act of [() => postgresDriver({ url }), () => target({}, { DATABASE_URL: url || ' ' })]) {
      expect(act).toThrow(/expected a URL such as postgres:\/\/user:password@host:5432\/database/);
      expect(act).not.toThrow(/ss\/word|12.34|mysql/);
    }
  });

  it.each([
    'postgres://ada@/shop?host=/run/postgresql',
    'postgres:///shop?host=/run/postgresql',
    'postgres://[::1]:5432/shop',
    'postgres://ada:p%25@host/shop?sslmode=disable&application_name=shop',
  ])('a URL in another form of libpq is taken: %s', (url) => {
    expect(() => postgresDriver({ url })).not.toThrow();
  });
});

describe('TLS', () => {
  const parametersOf = (config: PostgresDriverConfig): Record<string, string> =>
    Object.fromEntries(new URL(target(config).connectionString!).searchParams);

  it('pg gets the mode that it uses anyway, without its warning', () => {
    for (const mode of ['prefer', 'require', 'verify-ca', 'verify-full']) {
      expect(parametersOf({ url: `postgres://host/shop?sslmode=${mode}&channel_binding=require` })).toEqual({
        sslmode: 'verify-full',
        channel_binding: 'require',
      });
    }
    for (const mode of ['disable', 'no-verify']) {
      expect(parametersOf({ url: `postgres://host/shop?sslmode=${mode}` })).toEqual({ sslmode: mode });
    }
    const compatible = { sslmode: 'require', uselibpqcompat: 'true' };
    expect(parametersOf({ url: `postgres://host/shop?${new URLSearchParams(compatible).toString()}` })).toEqual(
      compatible,
    );
    expect(parametersOf({ url: 'postgres://host/shop?sslmode=verify-full&sslrootcert=system' })).toEqual({
      sslmode: 'verify-full',
    });
  });

  it('the option overrides the URL', () => {
    const url = 'postgres://host/shop?sslmode=disable&sslrootcert=/file&ssl=0';
    expect(target({ url, tls: true })).toEqual({ connectionString: 'postgres://host/shop', ssl: true, max: 10 });
    expect(target({ url, tls: { ca: 'pem' } })).toMatchObject({ ssl: { ca: 'pem' } });
  });
});

it('a password or a key that would become part of the build is reported', () => {
  expect(() => postgresDriver({ url: 'postgres://host', hots: 1 } as never)).toThrow(/`hots`/);
  expect(() => postgresDriver({ table: 'a.b.c' })).toThrow(/`table`/);
  expect(() => postgresDriver({ maxConnections: 0 })).toThrow(/`maxConnections`/);
  expect(() => postgresDriver({ client: {} } as never)).toThrow(/`client`/);
  expect(postgresDriver({ url: fromEnv('SESSIONS_URL') }).config).toBeDefined();
});
