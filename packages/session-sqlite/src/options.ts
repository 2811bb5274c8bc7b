import {
  objectWith,
  string,
  type FromEnv,
  type OptionKind,
  type OptionKinds,
  type SharedOptions,
  sqlKinds,
  type SqlOptions,
} from '@coatcheck/session-core/driver';

export const DRIVER = 'session-sqlite';

/** The options of `sqliteDriver()`. */
export interface SqliteDriverConfig extends SharedOptions, SqlOptions {
  /**
   * The database file. It and its directory are created if they are missing. A relative path starts at the working directory of the server
   * process. It must be on a local disk.
   *
   * @default '.sessions/sessions.db'
   */
  file?: FromEnv<string>;
}

/** The options of the driver without Astro, which can also take a database that the app has opened. */
export interface SqliteRuntimeConfig extends SqliteDriverConfig {
  /**
   * An open database, instead of `file`: a `DatabaseSync` of `node:sqlite`, or a `Database` of better-sqlite3. The driver changes none of its
   * settings, and never closes it.
   */
  client?: SqliteClient | undefined;
}

/** The part of a database that the driver uses. */
export interface SqliteClient {
  exec(sql: string): unknown;
  prepare(sql: string): SqliteStatement;
}

/** The part of a prepared statement that the driver uses. */
export interface SqliteStatement {
  /** The first row; null or undefined if there is none. */
  get(...parameters: (string | number | null)[]): unknown;
  run(...parameters: (string | number | null)[]): { changes: number | bigint };
}

const file: OptionKind<string> = {
  read(raw) {
    const path = string.read(raw);
    if (path === ':memory:') throw new Error('expected a file; to keep sessions in memory, use session-memory');
    if (path.startsWith('file:')) throw new Error("expected the path of a file, without 'file:'");
    return path;
  },
};

export const configKinds: OptionKinds<Omit<SqliteDriverConfig, keyof SharedOptions>> = { file, ...sqlKinds };

export const runtimeKinds: OptionKinds<Omit<SqliteRuntimeConfig, keyof SharedOptions>> = {
  ...configKinds,
  client: objectWith<SqliteClient>('an open SQLite database', 'exec', 'prepare'),
};
