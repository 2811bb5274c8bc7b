import type { SessionDriver } from '../contract/driver.ts';

import type { Engine } from './engine.ts';

/**
 * The property of a driver that holds its engine. `Symbol.for`, because the driver and `createSessions` may come from different copies of
 * this package.
 */
export const ENGINE: unique symbol = Symbol.for('@coatcheck/session-core/engine@1');

/** The engine of a driver made by `defineDriver`; undefined for any other driver. */
export function engineOf(driver: SessionDriver): Engine | undefined {
  return (driver as { [ENGINE]?: Engine } | undefined)?.[ENGINE];
}

/** Whether a driver is made by `defineDriver`. */
export function isCoatcheckDriver(driver: SessionDriver | undefined): driver is SessionDriver {
  return driver !== undefined && engineOf(driver) !== undefined;
}

/**
 * Removes expired sessions from a backend that does not expire them by itself. Call it from a scheduled job. On other backends it does
 * nothing.
 *
 * @param limit the maximum number of sessions to remove. Default: 1000.
 * @returns the number of removed sessions; 0 on a backend that expires sessions by itself.
 * @throws a TypeError when the driver is not a Coatcheck driver or the limit is wrong, and a `SessionDriverError` when the backend failed.
 * @example
 * const removed = await sweep(driver);
 */
export async function sweep(driver: SessionDriver, limit = 1000): Promise<number> {
  const engine = engineOf(driver);
  if (!engine)
    throw new TypeError(
      'sweep() needs a Coatcheck driver. Create one with the default export of its `/runtime` entry.',
    );
  if (!(limit > 0) || (limit !== Infinity && !Number.isInteger(limit)))
    throw new TypeError('sweep() takes the maximum number of sessions to remove, a whole number of at least 1.');
  return engine.sweep(limit);
}
