import type { SharedOptions } from '../config/option.ts';
import type { SessionDriver } from '../contract/driver.ts';
import type { DriverDefinition, Host } from '../engine/backend.ts';
import { ENGINE } from '../engine/engine-of.ts';
import { engineFor } from '../engine/engine.ts';

import { astroDriver } from './driver.ts';

/**
 * Creates the function that makes a driver from its options. It is the default export of a driver package's `/runtime` entry. Creating a
 * driver is synchronous: options are resolved, and the backend is opened, at the first operation.
 *
 * @returns a function of the options and the host. It never throws; wrong options reject every operation with the code `configuration`.
 * @example
 * export default defineDriver<ThingDriverConfig>({
 *   name: 'session-thing',
 *   options: thingKinds,
 *   variables: ['THING_URL'],
 *   open: async ({ url }, { env }) => (await import('./store.js')).openStore(url ?? env('THING_URL')),
 * });
 */
export function defineDriver<Config extends SharedOptions>(
  definition: DriverDefinition<Config>,
): (config?: Config, host?: Host) => SessionDriver {
  return (config, host) => {
    const engine = engineFor(definition, config ?? ({} as Config), host);
    return { ...astroDriver(engine), [ENGINE]: engine } as SessionDriver;
  };
}
