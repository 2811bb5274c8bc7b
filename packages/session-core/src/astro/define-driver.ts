import type { SharedOptions } from '../config/option.ts';
import type { SessionDriver } from '../contract/driver.ts';
import type { DriverDefinition, Host } from '../engine/backend.ts';
import { ENGINE } from '../engine/engine-of.ts';
import { engineFor } from '../engine/engine.ts';

import { astroDriver } from './driver.ts';

/**
 * Turns a store into a driver: the default export of a package's `runtime` entry. The driver is synchronous to make and touches nothing
 * before its first operation.
 */
export function defineDriver<Config extends SharedOptions>(
  definition: DriverDefinition<Config>,
): (config?: Config, host?: Host) => SessionDriver {
  return (config, host) => {
    const engine = engineFor(definition, config ?? ({} as Config), host);
    return { ...astroDriver(engine), [ENGINE]: engine } as SessionDriver;
  };
}
