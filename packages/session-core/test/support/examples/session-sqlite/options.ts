import { string, type FromEnv, type OptionKinds, type SharedOptions } from '@coatcheck/session-core/driver';

export interface SqliteDriverConfig extends SharedOptions {
  /** The database file. Default: `sessions.db`. */
  file?: FromEnv<string>;
}

export const sqliteKinds: OptionKinds<Omit<SqliteDriverConfig, keyof SharedOptions>> = { file: string };
