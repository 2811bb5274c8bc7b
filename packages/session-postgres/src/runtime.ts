import { defineDriver, type Host, type SessionDriver } from '@coatcheck/session-core/driver';
import { DRIVER, type PostgresRuntimeConfig, runtimeKinds, VARIABLES } from './options.ts';

export type { PostgresClient, PostgresJsClient, PostgresRuntimeConfig } from './options.ts';

/**
 * The driver without Astro. Drivers in one process that have the same options share their connections.
 *
 * @example
 * const driver = postgres({ url: 'postgres://localhost/shop' });
 * const driver = postgres({ client: new Pool() });
 */
const postgres: (config?: PostgresRuntimeConfig, host?: Host) => SessionDriver = defineDriver<PostgresRuntimeConfig>({
  name: DRIVER,
  options: runtimeKinds,
  variables: VARIABLES,
  open: async (options, context) => (await import('./store.ts')).openStore(options, context),
});

export default postgres;
