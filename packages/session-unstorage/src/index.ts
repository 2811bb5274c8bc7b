import {
  createError,
  defineDriver,
  valueStore,
  whole,
  type SessionDriver,
  type SharedOptions,
} from '@coatcheck/session-core';
import type { Driver } from 'unstorage';
import { unstorageBackend } from './backend.ts';

export { check, fromEnv, sweep } from '@coatcheck/session-core';
export type { Adopt } from '@coatcheck/session-core';

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
  return defineDriver<Config>({
    name: NAME,
    options: { backend: whole() },
    open: (_options, { timeoutMs }) => valueStore(unstorageBackend(driver, timeoutMs)),
  })({ ...options, backend: numberOf(driver) });
}

const NAME = 'session-unstorage';
const methods = ['getItem', 'setItem', 'removeItem'] as const;

interface Config extends SharedOptions {
  /** Which unstorage driver: drivers of one configuration share a store, and options alone do not tell two of them apart. */
  backend: number;
}

// A symbol of the registry: copies of this package in one process must not give one number to two drivers.
const NUMBERS = Symbol.for('@coatcheck/session-unstorage/numbers@1');

function numberOf(driver: Driver): number {
  const holder = globalThis as { [NUMBERS]?: { of: WeakMap<Driver, number>; last: number } };
  const numbers = (holder[NUMBERS] ??= { of: new WeakMap(), last: 0 });
  let number = numbers.of.get(driver);
  if (number === undefined) numbers.of.set(driver, (number = ++numbers.last));
  return number;
}
