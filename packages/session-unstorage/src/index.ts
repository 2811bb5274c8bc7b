import {
  createError,
  defineDriver,
  valueStore,
  type SharedOptions,
  type SessionDriver,
} from '@coatcheck/session-core/driver';
import type { Driver } from 'unstorage';
import { legacySessions, unstorageBackend } from './backend.ts';

export { check, fromEnv, sweep } from '@coatcheck/session-core';
export type { MigrateFrom } from '@coatcheck/session-core';

/** What every Coatcheck driver takes, but `idleTtl`: extending a session by reading it needs changes that are atomic. */
export type UnstorageDriverConfig = Omit<SharedOptions, 'idleTtl'>;

/**
 * A session driver around an unstorage driver: what the entrypoint of a site returns.
 *
 * Touches nothing before the first request. Throws when it is given something else than a driver that reads and writes.
 *
 * @param driver from `unstorage/drivers/*`, or any other of that shape. Drivers around the same one share the queue of their writes.
 */
export function fromUnstorage(driver: Driver, options: UnstorageDriverConfig = {}): SessionDriver {
  const missing = methods.filter((name) => typeof (driver as Partial<Driver> | undefined)?.[name] !== 'function');
  if (missing.length > 0) {
    throw createError(
      NAME,
      'configuration',
      `fromUnstorage() takes an unstorage driver that reads and writes, such as fsLite({ base }); what it was given has no ` +
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
