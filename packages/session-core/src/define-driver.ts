import { astroFace } from './astro-face.ts';
import { engineFor, type DriverDefinition, type Engine, type Host } from './engine.ts';
import type { SharedOptions } from './options.ts';
import type { SessionDriver } from './types.ts';

// A symbol of the registry, because the driver and `createSessions` may come from different copies of this package.
const ENGINE = Symbol.for('@coatcheck/session-core/engine@1');

/**
 * Turns a store into a driver: the default export of a package's `runtime` entry. The driver is synchronous to make and touches nothing
 * before its first operation.
 */
export function defineDriver<Config extends SharedOptions>(
  definition: DriverDefinition<Config>,
): (config?: Config, host?: Host) => SessionDriver {
  return (config, host) => {
    const engine = engineFor(definition, config ?? ({} as Config), host);
    return { ...astroFace(engine), [ENGINE]: engine } as SessionDriver;
  };
}

/** The engine of a driver made by `defineDriver`; undefined for any other driver. */
export function engineOf(driver: SessionDriver): Engine | undefined {
  return (driver as { [ENGINE]?: Engine })[ENGINE];
}
