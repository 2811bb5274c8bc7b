import { defineDriver, type Host, type SessionDriver } from '@coatcheck/session-core/driver';
import { DRIVER } from './errors.ts';
import { runtimeKinds, VARIABLES, type LibsqlRuntimeConfig } from './options.ts';
import { openStore } from './store.ts';

export type { LibsqlClient, LibsqlRuntimeConfig, LibsqlStatement } from './options.ts';

/**
 * The driver without Astro.
 *
 * @example
 * const driver = libsql({ url: 'libsql://name.turso.io', authToken });
 * const driver = libsql({ client: createClient({ url, authToken }) });
 */
const libsql: (config?: LibsqlRuntimeConfig, host?: Host) => SessionDriver = defineDriver<LibsqlRuntimeConfig>({
  name: DRIVER,
  options: runtimeKinds,
  variables: VARIABLES,
  open: openStore,
});

export default libsql;
