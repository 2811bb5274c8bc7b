import {
  defineDriver,
  missingVariable,
  valueStore,
  type Host,
  type SessionDriver,
} from '@coatcheck/session-core/driver';
import { openBackend } from './backend.ts';
import { thingKinds, type ThingDriverConfig } from './options.ts';

/** The driver without Astro. */
const thing: (config?: ThingDriverConfig, host?: Host) => SessionDriver = defineDriver<ThingDriverConfig>({
  name: 'session-thing',
  options: thingKinds,
  // Drivers for which these variables differ do not share a connection.
  variables: ['THING_URL'],
  async open({ url }, { env }) {
    const address = url ?? env('THING_URL');
    if (!address) throw missingVariable('session-thing', 'THING_URL', 'url');
    // Import the client here, with `await import(...)`: nothing is loaded before it is needed.
    return valueStore(openBackend(address));
  },
});

export default thing;
