import {
  string,
  type FromEnv,
  type BindingKind,
  binding,
  type OptionKind,
  type OptionKinds,
  type SharedOptions,
  sqlKinds,
  type SqlOptions,
} from '@coatcheck/session-core/driver';

export const DRIVER = 'session-d1';

/** The part of a D1 database that the driver uses. `env.DB` in a Worker is such a database. */
export interface D1Client {
  prepare(sql: string): D1Statement;
  batch(statements: never[]): Promise<{ results: unknown[] }[]>;
}

/** The part of a prepared statement that the driver uses. */
export interface D1Statement {
  bind(...parameters: unknown[]): D1Statement;
}

/** The options of `d1Driver()`. */
export interface D1DriverConfig extends SharedOptions, SqlOptions {
  /**
   * The name of the D1 binding in the environment of the Worker.
   *
   * @default 'DB'
   */
  database?: FromEnv<string>;
}

/** The options of the driver without Astro, which can also take the database itself. */
export interface D1RuntimeConfig extends D1DriverConfig {
  /** The D1 database, such as `env.DB`, instead of the name of its binding. The driver never closes it. */
  client?: D1Client | undefined;
}

export const configKinds: OptionKinds<Omit<D1DriverConfig, keyof SharedOptions>> = { database: string, ...sqlKinds };

export const d1Database: BindingKind<D1Client> = binding('a D1 database, such as `env.DB`', 'prepare', 'batch');

const client: OptionKind<D1Client> = {
  read(raw) {
    const database = d1Database.read(raw);
    // The part of D1's Sessions API that reads from replicas. A replica that lags behind would show a session that was destroyed.
    if ('getBookmark' in database)
      throw new Error('expected a D1 database, and not what its method `withSession` returns');
    return database;
  },
};

export const runtimeKinds: OptionKinds<Omit<D1RuntimeConfig, keyof SharedOptions>> = { ...configKinds, client };
