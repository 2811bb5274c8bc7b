import {
  missingVariable,
  objectWith,
  parseUrl,
  readVariable,
  token,
  type FromEnv,
  type OptionKind,
  type OptionKinds,
  type ReadEnv,
  type Resolved,
  type SharedOptions,
  sqlKinds,
  type SqlOptions,
} from '@coatcheck/session-core/driver';

export const DRIVER = 'session-libsql';

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

/** Matches the URL of a server. */
const SERVER = /^(?:libsql|https?):\/\/[^\s/?#@]+(?:\/[^\s?#]*)?$/;

// The values are checked here because the client's own errors quote an invalid URL or token.
const databaseUrl: OptionKind<string> = {
  read(raw) {
    const url = String(raw);
    if (FILE.test(url) || (SERVER.test(url) && parseUrl(url))) return url;
    throw new Error(
      url.startsWith('file:')
        ? 'expected the URL of a file, such as file:/data/sessions.db, with no query in it'
        : 'expected a URL that starts with libsql://, https://, http:// or file:, with no token, query or space in it',
    );
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
 * The database that the options and the environment name. A token of one pair of variables is not sent to the URL of the other. To a URL of the
 * options, the token is sent whose variable for the URL is not set.
 *
 * @throws {SessionDriverError} `configuration` if the URL is missing or invalid, or if the token is invalid.
 */
export function targetOf(options: Resolved<LibsqlDriverConfig>, env: ReadEnv): Target {
  const [urlName] = PAIRS.find(([name]) => env(name)) ?? PAIRS[0];
  const url = options.url ?? env(urlName);
  if (!url) throw missingVariable(DRIVER, 'LIBSQL_URL (or TURSO_DATABASE_URL)', 'url');
  const [, tokenName] =
    PAIRS.find(([name]) => env(name) === url) ?? PAIRS.find(([name, itsToken]) => !env(name) && env(itsToken)) ?? [];
  const authToken = options.authToken ?? (tokenName && env(tokenName));
  return {
    url: readVariable(DRIVER, databaseUrl, urlName, url),
    authToken: authToken ? readVariable(DRIVER, token, tokenName ?? 'authToken', authToken) : undefined,
  };
}
