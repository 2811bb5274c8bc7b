import type { EnvRef, FromEnv } from '../../config/env.ts';
import { boolean, type OptionKind, type OptionKinds } from '../../config/option.ts';

/** The options that every SQL driver has. */
export interface SqlOptions {
  /**
   * The table of the sessions. It may have a schema: `app.sessions`. Each name has up to 40 letters, digits and underscores, and does not
   * start with a digit.
   *
   * @default 'coatcheck_sessions'
   */
  table?: FromEnv<string>;
  /**
   * Whether the driver creates the table when it is missing. With `false`, create it yourself: `createTableSql()` returns the statements.
   *
   * @default true
   */
  createTable?: boolean | EnvRef | undefined;
}

export const DEFAULT_TABLE = 'coatcheck_sessions';

const NAME = /^[A-Za-z_]\w{0,39}$/;

const tableName: OptionKind<string> = {
  read(raw) {
    const names = typeof raw === 'string' ? raw.split('.') : [];
    if (names.length === 0 || names.length > 2 || !names.every((name) => NAME.test(name))) {
      throw new Error(
        "expected the name of a table, such as 'sessions' or 'app.sessions', of up to 40 letters, digits and `_`",
      );
    }
    return raw as string;
  },
};

export const sqlKinds: OptionKinds<SqlOptions> = { table: tableName, createTable: boolean };

/**
 * Quotes the name of a table for SQL, with its schema if it has one.
 *
 * @param suffix added to the name, for an index or a function of the table.
 * @throws an Error if the name is not a valid `table` option.
 */
export function quoteTable(table: string, suffix = ''): string {
  return `${tableName.read(table)}${suffix}`
    .split('.')
    .map((name) => `"${name}"`)
    .join('.');
}
