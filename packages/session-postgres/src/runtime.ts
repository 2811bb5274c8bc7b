import {
  defineDriver,
  missingVariable,
  valueStore,
  type Host,
  type SessionDriver,
} from '@coatcheck/session-core/driver';
import { openBackend } from './backend.ts';
import { postgresKinds, type PostgresDriverConfig } from './options.ts';

/** The driver without Astro. */
const postgres: (config?: PostgresDriverConfig, host?: Host) => SessionDriver = defineDriver<PostgresDriverConfig>({
  name: 'session-postgres',
  options: postgresKinds,
  // Drivers for which these variables differ do not share a connection.
  variables: ['POSTGRES_URL'],
  async open({ url }, { env }) {
    const address = url ?? env('POSTGRES_URL');
    if (!address) throw missingVariable('session-postgres', 'POSTGRES_URL', 'url');
    // Import the client here, with `await import(...)`: nothing is loaded before it is needed.
    return valueStore(openBackend(address));
  },
});

export default postgres;
