import { defineDriver, type Host, type SessionDriver } from '@coatcheck/session-core/driver';
import { DRIVER, type LibsqlRuntimeConfig, runtimeKinds, VARIABLES } from './options.ts';

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
  open: async (options, context) => (await import('./store.ts')).openStore(options, context),
});

export default libsql;
