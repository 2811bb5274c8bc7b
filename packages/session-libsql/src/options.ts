import {
  createError,
  missingVariable,
  objectWith,
  secretString,
  type FromEnv,
  type OptionKind,
  type OptionKinds,
  type ReadEnv,
  type Resolved,
  type SharedOptions,
} from '@coatcheck/session-core/driver';
import { sqlKinds, type SqlOptions } from '@coatcheck/session-core/sql';
import { DRIVER } from './errors.ts';

/** The options of `libsqlDriver()`. */
export interface LibsqlDriverConfig extends SharedOptions, SqlOptions {
  /**
   * The URL of the database: `libsql://name.turso.io`, `https://` or `http://`; or that of a file, such as `file:/data/sessions.db`. The
   * directory of a file must exist. A relative path starts at the working directory of the server process.
   *
   * @default the environment variable `LIBSQL_URL`, or `TURSO_DATABASE_URL`, read when the server runs
   */
  url?: FromEnv<string>;
  /**
   * The token of the database. A token that is written here literally becomes part of the build; the environment variables and `fromEnv` do
   * not.
   *
   * @default the environment variable `LIBSQL_AUTH_TOKEN`, or `TURSO_AUTH_TOKEN` for the URL of `TURSO_DATABASE_URL`, read when the server
   *   runs; without one, no token is sent
   */
  authToken?: FromEnv<string>;
}

/** The options of the driver without Astro, which can also take a client that the app has created. */
export interface LibsqlRuntimeConfig extends LibsqlDriverConfig {
  /**
   * A client of `@libsql/client`, instead of `url` and `authToken`. The driver never closes it. For a file, use `url`. With `syncUrl`, reads
   * are as old as its last sync, and writes block the process until the primary answers.
   */
  client?: LibsqlClient | undefined;
}

/** The part of a client that the driver uses. */
export interface LibsqlClient {
  execute(statement: LibsqlStatement): Promise<{ rows: unknown[] }>;
  batch(statements: LibsqlStatement[], mode: 'write'): Promise<{ rows: unknown[] }[]>;
}

export interface LibsqlStatement {
  sql: string;
  args: (string | number | null)[];
}

/** Matches the URL of a file on this machine. */
const FILE = /^file:(?!:memory:|\/\/[^/])[^?#]+$/;

// The values are checked here because the client's own errors quote an invalid URL or token.
const databaseUrl: OptionKind<string> = {
  read(raw) {
    const url = typeof raw === 'string' && URL.canParse(raw) ? new URL(raw) : undefined;
    if (url?.protocol === 'file:') {
      if (!FILE.test(raw as string))
        throw new Error('expected the URL of a file, such as file:/data/sessions.db, with no query in it');
      return raw as string;
    }
    const isServer =
      url && /^(?:libsql|https?):$/.test(url.protocol) && url.username + url.password + url.search + url.hash === '';
    if (!isServer) {
      throw new Error(
        'expected a URL that starts with libsql://, https://, http:// or file:, with no token or query in it',
      );
    }
    return raw as string;
  },
};

const token: OptionKind<string> = {
  ...secretString,
  read(raw) {
    if (typeof raw !== 'string' || !/^[!-~]+$/.test(raw))
      throw new Error('expected a token, without spaces or quotes around it');
    return raw;
  },
};

export const configKinds: OptionKinds<Omit<LibsqlDriverConfig, keyof SharedOptions>> = {
  url: databaseUrl,
  authToken: token,
  ...sqlKinds,
};

export const runtimeKinds: OptionKinds<Omit<LibsqlRuntimeConfig, keyof SharedOptions>> = {
  ...configKinds,
  client: objectWith<LibsqlClient>('a client of @libsql/client', 'execute', 'batch'),
};

/** The database to connect to. */
export interface Target {
  url: string;
  authToken: string | undefined;
}

const PAIRS = [
  ['LIBSQL_URL', 'LIBSQL_AUTH_TOKEN'],
  ['TURSO_DATABASE_URL', 'TURSO_AUTH_TOKEN'],
] as const;

/** The names of all environment variables that the driver may read. */
export const VARIABLES: string[] = PAIRS.flat();

/**
 * The database that the options and the environment name. A token of one pair of variables is not sent to the URL of the other.
 *
 * @throws {SessionDriverError} `configuration` if the URL is missing or invalid, or if the token is invalid.
 */
export function targetOf(options: Resolved<LibsqlDriverConfig>, env: ReadEnv): Target {
  const pair = PAIRS.find(([urlName, tokenName]) => env(options.url === undefined ? urlName : tokenName)) ?? PAIRS[0];
  const [urlName, tokenName] = pair;
  const url = options.url ?? env(urlName);
  if (!url) throw missingVariable(DRIVER, 'LIBSQL_URL (or TURSO_DATABASE_URL)', 'url');
  const authToken = options.authToken ?? env(tokenName);
  return {
    url: check(databaseUrl, urlName, url),
    authToken: authToken ? check(token, tokenName, authToken) : undefined,
  };
}

function check(kind: OptionKind<string>, name: string, value: string): string {
  try {
    return kind.read(value);
  } catch (error) {
    throw createError(DRIVER, 'configuration', `${name}: ${(error as Error).message}.`);
  }
}
