import { createError, defineDriver, type Host, type SessionDriver } from '@coatcheck/session-core/driver';
import { findDatabase } from './database.ts';
import { DRIVER } from './errors.ts';
import { runtimeKinds, type D1RuntimeConfig } from './options.ts';
import { d1Store } from './store.ts';

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
  async open({ client, database, ...options }, { timeoutMs }) {
    if (client && database !== undefined) {
      throw createError(DRIVER, 'configuration', 'Set `database` or `client`, not both.');
    }
    return d1Store(client ?? (await findDatabase(database)), options, timeoutMs);
  },
});

export default d1;
