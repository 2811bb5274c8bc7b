import { encodeField } from '../codec/field.ts';
import type { SessionDriver } from '../contract/driver.ts';
import { createError, type SessionDriverError } from '../contract/errors.ts';
import { engineOf } from './engine-of.ts';

import { createSessionId } from './session-id.ts';

/** How a driver and its backend are. Safe to log, and to show to whoever may know that there is trouble. */
export interface Check {
  ok: boolean;
  driver: string;
  /** What was tried, in order, up to and including what failed. The first one also connects. */
  steps: CheckStep[];
}

export interface CheckStep {
  name: 'connect' | 'write' | 'read' | 'remove';
  /** How long it took, in milliseconds. */
  ms: number;
  /** What is wrong, and what to do about it. */
  error?: SessionDriverError;
}

/**
 * Connects to a driver's backend, then writes, reads and removes a record of a minute's life under an id that nobody has: for the address
 * that a load balancer asks whether the server is well. Never rejects for what is wrong with the backend, and takes no longer than the
 * driver's `timeout` for the step that fails. Throws a TypeError for a driver that is none of ours.
 */
export async function check(driver: SessionDriver): Promise<Check> {
  const engine = engineOf(driver);
  if (!engine) throw new TypeError('check() takes a driver of Coatcheck: call the default export of a runtime.');
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
    // Another id: a backend with a cache would remember that there was nothing.
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
    'What was written a moment ago is not what is read. Is the backend full, does it drop what it is given, or does a replica answer?',
    { operation: 'read' },
  );
}
