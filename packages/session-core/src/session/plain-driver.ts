import { fieldName, keyOfField } from '../codec/field.ts';
import { fieldsOfPayload, encodePayload } from '../codec/payload.ts';
import type { SessionDriver } from '../contract/driver.ts';
import type { Fields } from '../contract/store.ts';
import { engineOf } from '../engine/engine-of.ts';
import { type Engine, engineOver } from '../engine/engine.ts';

import type { ValueBackend } from '../stores/value-layout.ts';
import { plainDriverStore } from '../stores/value-store.ts';

const NAME = 'session-core';

/** The engine of any driver: its own, or for three plain methods, one over whole values in the form in which Astro writes them. */
export function engineOfAny(driver: SessionDriver): Engine {
  const own = engineOf(driver);
  if (own) return own;
  const holder = globalThis as { [ADAPTED]?: WeakMap<SessionDriver, Engine> };
  const adapted = (holder[ADAPTED] ??= new WeakMap());
  let engine = adapted.get(driver);
  if (!engine) adapted.set(driver, (engine = engineOver(NAME, plainDriverStore(payloads(driver), { pack, unpack }))));
  return engine;
}

// Two `createSessions` over one driver share the queue of its writes, whichever copy of this package they come from. Not kept on the
// driver, which may be frozen, a module, or spread into another one with methods of its own.
const ADAPTED = Symbol.for('@coatcheck/session-core/adapted@1');

function payloads(driver: SessionDriver): ValueBackend {
  return {
    compareAndSet: false,
    async get(key) {
      const payload: unknown = await driver.getItem(key);
      if (payload === null || payload === undefined) return null;
      return { value: typeof payload === 'string' ? payload : JSON.stringify(payload) };
    },
    async set(key, value) {
      await driver.setItem(key, value);
      return true;
    },
    async remove(key) {
      await driver.removeItem(key);
    },
  };
}

function pack({ fields }: { fields: Fields }): string {
  const session: Fields = new Map();
  for (const [name, value] of fields) session.set(keyOfField(name) ?? name, value);
  return JSON.stringify(encodePayload(session, Date.now(), () => undefined));
}

function unpack(payload: string) {
  const fields: Fields = new Map();
  for (const [key, value] of fieldsOfPayload(NAME, payload)) fields.set(fieldName(key), value);
  return { fields, deadline: Infinity, idleUntil: Infinity };
}
