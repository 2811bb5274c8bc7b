import { defineDriver, type Host, type SessionDriver } from '@coatcheck/session-core/driver';
import { DRIVER, runtimeKinds, type D1RuntimeConfig } from './options.ts';

export type { D1Client, D1RuntimeConfig, D1Statement } from './options.ts';

/**
 * The driver without Astro. `client` can be the D1 database itself.
 *
 * @example
 * const driver = d1({ client: env.DB });
 */
const d1: (config?: D1RuntimeConfig, host?: Host) => SessionDriver = defineDriver<D1RuntimeConfig>({
  name: DRIVER,
  options: runtimeKinds,
  open: async (options, context) => (await import('./store.ts')).openStore(options, context),
});

export default d1;
