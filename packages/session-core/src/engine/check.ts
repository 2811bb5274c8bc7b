import { encodeField } from '../codec/field.ts';
import type { SessionDriver } from '../contract/driver.ts';
import { createError, type SessionDriverError } from '../contract/errors.ts';
import { engineOf } from './engine-of.ts';

import { createSessionId } from './session-id.ts';

/** The result of `check`. Safe to log: it contains no session data and no credentials. */
export interface Check {
  /** Whether all steps succeeded. */
  ok: boolean;
  /** The driver's name, such as `session-redis`. */
  driver: string;
  /** The steps that were tried, in order. If one failed, it is the last. */
  steps: CheckStep[];
}

/** One step of `check`. */
export interface CheckStep {
  /** The step. `connect` reads a session that does not exist. */
  name: 'connect' | 'write' | 'read' | 'remove';
  /** The duration in milliseconds. */
  ms: number;
  /** Why the step failed, and what to do about it; absent when it succeeded. */
  error?: SessionDriverError;
}

/**
 * Tests a driver: connects to its backend, then writes, reads and removes a test session under a random id. The test session expires after
 * a minute if the last step fails. Each step takes at most the driver's `timeout`, and the first failure ends the check.
 *
 * Use it for monitoring. Do not use it as a liveness probe: an outage of a shared backend would fail every instance.
 *
 * @returns the result. Problems with the options or the backend do not reject; they are in `steps`.
 * @throws a TypeError when the driver is not a Coatcheck driver.
 * @example
 * const { ok, steps } = await check(driver);
 * if (!ok) console.error('Sessions do not work', steps);
 */
export async function check(driver: SessionDriver): Promise<Check> {
  const engine = engineOf(driver);
  if (!engine)
    throw new TypeError(
      'check() needs a Coatcheck driver. Create one with the default export of its `/runtime` entry.',
    );
  const id = createSessionId();
  const field = encodeField(Date.now() + LIFETIME_MS, '["check"]');
  const steps: CheckStep[] = [];

  const step = async (name: CheckStep['name'], work: () => Promise<unknown>): Promise<boolean> => {
    const startedAt = performance.now();
    const took = (): number => Math.round((performance.now() - startedAt) * 100) / 100;
    try {
      await work();
      steps.push({ name, ms: took() });
      return true;
    } catch (error) {
      steps.push({ name, ms: took(), error: error as SessionDriverError });
      return false;
    }
  };

  const ok =
    // Not the id of the test session: a backend with a cache could remember that it is missing.
    (await step('connect', () => engine.read(createSessionId()))) &&
    (await step('write', () => engine.patch(id, { set: new Map([['check', field]]) }))) &&
    (await step('read', async () => {
      const found = (await engine.read(id))?.get('check');
      if (found !== field) throw notAsWritten(engine.driver);
    })) &&
    (await step('remove', () => engine.destroy(id)));
  return { ok, driver: engine.driver, steps };
}

const LIFETIME_MS = 60_000;

function notAsWritten(driver: string): SessionDriverError {
  return createError(
    driver,
    'refused',
    'The value that was read is not the one that was just written. Is the backend full, does it drop writes, or does it read from a replica?',
    { operation: 'read' },
  );
}
