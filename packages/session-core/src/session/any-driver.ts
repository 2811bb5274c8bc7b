import type { SessionDriver } from '../contract/driver.ts';
import { engineOf } from '../engine/engine-of.ts';
import { type Engine, engineOver } from '../engine/engine.ts';

const NAME = 'session-core';

/** The engine of any driver. A plain driver, which is any object with the three methods of Astro's interface, gets a new engine. */
export function engineOfAny(driver: SessionDriver): Engine {
  const own = engineOf(driver);
  if (own) return own;
  const holder = globalThis as { [ADAPTED]?: WeakMap<SessionDriver, Engine> };
  const adapted = (holder[ADAPTED] ??= new WeakMap());
  let engine = adapted.get(driver);
  // Loaded on demand, because Coatcheck's own drivers do not need it.
  const open = async () => (await import('./plain-driver.ts')).plainDriverStore(NAME, driver);
  if (!engine) adapted.set(driver, (engine = engineOver(NAME, open)));
  return engine;
}

// All `createSessions` with the same driver share its queue of writes, even if they come from different copies of this package. The engine
// is not a property of the driver, because the driver may be frozen or a module, or may be spread into another driver.
const ADAPTED = Symbol.for('@coatcheck/session-core/adapted@1');
