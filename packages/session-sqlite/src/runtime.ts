import { defineDriver, type Host, type SessionDriver } from '@coatcheck/session-core/driver';
import { DRIVER } from './errors.ts';
import { runtimeKinds, type SqliteRuntimeConfig } from './options.ts';
import { openStore } from './store.ts';

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
  open: openStore,
});

export default sqlite;
