import {
  createError,
  defineDriver,
  valueStore,
  type SharedOptions,
  type SessionDriver,
} from '@coatcheck/session-core/driver';
import type { check as checkDriver } from '@coatcheck/session-core';
import type { Driver } from 'unstorage';
import { legacySessions, unstorageBackend } from './backend.ts';

export { fromEnv, type MigrateFrom, sweep } from '@coatcheck/session-core/driver';

/** Loaded when it is called, because it takes longer to load than the driver. See `check` of `@coatcheck/session-core`. */
export const check: typeof checkDriver = async (...args) => (await import('@coatcheck/session-core')).check(...args);

/** The options of `fromUnstorage()`. There is no `idleTtl`: extending a session with each read needs atomic changes. */
export type UnstorageDriverConfig = Omit<SharedOptions, 'idleTtl'>;

/**
 * Makes a session driver from an unstorage driver, for the entrypoint of a site. It does not use the storage before the first request.
 *
 * @param driver from `unstorage/drivers/*`, or any object with the same methods. Session drivers from the same object share one queue of
 *   writes.
 * @throws {SessionDriverError} `configuration` if `driver` cannot read, write and remove, and for invalid options.
 * @example
 * import fsLite from 'unstorage/drivers/fs-lite';
 *
 * export default () => fromUnstorage(fsLite({ base: '.sessions' }), { ttl: 86_400 });
 */
export function fromUnstorage(driver: Driver, options: UnstorageDriverConfig = {}): SessionDriver {
  const missing = methods.filter((name) => typeof (driver as Partial<Driver> | undefined)?.[name] !== 'function');
  if (missing.length > 0) {
    throw createError(
      NAME,
      'configuration',
      `fromUnstorage() needs an unstorage driver, such as fsLite({ base }). This one has no ` +
        `${missing.join(', ')}.`,
    );
  }
  return defineDriver<UnstorageDriverConfig>({
    name: NAME,
    options: {},
    client: driver,
    open: (_options, { timeoutMs }) => ({
      ...valueStore(unstorageBackend(driver, timeoutMs)),
      legacySessions: legacySessions(driver),
    }),
  })(options);
}

const NAME = 'session-unstorage';
const methods = ['getItem', 'setItem', 'removeItem'] as const;
