import {
  type EnvRef,
  type FromEnv,
  integer,
  type OptionKind,
  type OptionKinds,
  type SharedOptions,
  tls,
  type TlsOptions,
  sqlKinds,
  type SqlOptions,
} from '@coatcheck/session-core/driver';
import { parsePostgresUrl } from './url.ts';

export const DRIVER = 'session-postgres';

/** The options of `postgresDriver()`. */
export interface PostgresDriverConfig extends SharedOptions, SqlOptions {
  /**
   * The URL of the database: `postgres://user:password@host:5432/database`. A URL that is written here literally becomes part of the build,
   * with its password; the environment variable and `fromEnv` do not.
   *
   * @default the environment variable `DATABASE_URL`, or else libpq's `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD` and `PGDATABASE`, read
   *   when the server runs
   */
  url?: FromEnv<string>;
  /**
   * Whether to use TLS. `true` trusts the certificate authorities that Node trusts; an object sets others, or a client certificate. It
   * overrides `sslmode` in the URL.
   *
   * @default what `sslmode` in the URL says, or no TLS
   */
  tls?: FromEnv<boolean | TlsOptions>;
  /**
   * The maximum number of connections to the database. Each process has its own.
   *
   * @default 10
   */
  maxConnections?: number | EnvRef | undefined;
}

/** The options of the driver without Astro, which can also take a client that the app has created. */
export interface PostgresRuntimeConfig extends PostgresDriverConfig {
  /**
   * A client of the app, instead of `url`: a `Pool` of pg or of `@neondatabase/serverless`, what Neon's `neon()` returns, a PGlite, or the `sql`
   * of Postgres.js. The driver never closes it.
   */
  client?: PostgresClient | PostgresJsClient | undefined;
}

/** The part of a client that the driver uses. Not a single connection in a transaction: each statement must be a transaction of its own. */
export interface PostgresClient {
  query(text: string, values: string[]): PromiseLike<{ rows: unknown[] } | unknown[]>;
}

/** The part of Postgres.js that the driver uses. */
export interface PostgresJsClient {
  unsafe(text: string, values: string[]): PromiseLike<unknown[]>;
}

const postgresUrl: OptionKind<string> = {
  read(raw) {
    parsePostgresUrl(String(raw));
    return raw as string;
  },
  holdsSecret: (url) => parsePostgresUrl(url).password !== '' || parsePostgresUrl(url).searchParams.has('password'),
};

const client: OptionKind<PostgresClient | PostgresJsClient> = {
  read(raw) {
    const { query, unsafe } = (raw ?? {}) as Record<string, unknown>;
    if (typeof query === 'function' || typeof unsafe === 'function') return raw as PostgresClient;
    throw new Error('expected a client with the method query, or unsafe, such as a Pool of pg');
  },
};

export const configKinds: OptionKinds<Omit<PostgresDriverConfig, keyof SharedOptions>> = {
  url: postgresUrl,
  tls,
  maxConnections: integer({ from: 1, to: 10_000 }),
  ...sqlKinds,
};

export const runtimeKinds: OptionKinds<Omit<PostgresRuntimeConfig, keyof SharedOptions>> = { ...configKinds, client };

/** libpq's variables, by the option of pg. pg reads others by itself, such as PGSSLMODE. */
export const LIBPQ = {
  host: 'PGHOST',
  port: 'PGPORT',
  user: 'PGUSER',
  password: 'PGPASSWORD',
  database: 'PGDATABASE',
} as const;

/** The environment variables that say where PostgreSQL is. */
export const VARIABLES: string[] = ['DATABASE_URL', ...Object.values(LIBPQ)];
