import type { SessionDriver } from '../contract/driver.ts';

import type { Engine } from './engine.ts';

// A symbol of the registry, because the driver and `createSessions` may come from different copies of this package.
export const ENGINE: unique symbol = Symbol.for('@coatcheck/session-core/engine@1');

/** The engine of a driver made by `defineDriver`; undefined for any other driver. */
export function engineOf(driver: SessionDriver): Engine | undefined {
  return (driver as { [ENGINE]?: Engine } | undefined)?.[ENGINE];
}

/**
 * Removes up to `limit` (default 1000) expired sessions from a backend that does not do so by itself, and resolves to how many there were;
 * to 0 where the backend does. For a scheduled job. Throws a TypeError for a driver that is none of ours.
 */
export async function sweep(driver: SessionDriver, limit = 1000): Promise<number> {
  const engine = engineOf(driver);
  if (!engine) throw new TypeError('sweep() takes a driver of Coatcheck: call the default export of a runtime.');
  return engine.sweep(limit);
}
