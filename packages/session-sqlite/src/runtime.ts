import { defineDriver, type Host, type SessionDriver } from '@coatcheck/session-core/driver';
import { DRIVER, runtimeKinds, type SqliteRuntimeConfig } from './options.ts';

export type { SqliteClient, SqliteRuntimeConfig, SqliteStatement } from './options.ts';

/**
 * The driver without Astro. Drivers and processes that use the same file share their sessions.
 *
 * @example
 * const driver = sqlite({ file: '/data/sessions.db' });
 * const driver = sqlite({ client: new DatabaseSync('/data/app.db') });
 */
const sqlite: (config?: SqliteRuntimeConfig, host?: Host) => SessionDriver = defineDriver<SqliteRuntimeConfig>({
  name: DRIVER,
  options: runtimeKinds,
  open: async (options, context) => (await import('./store.ts')).openStore(options, context),
});

export default sqlite;
