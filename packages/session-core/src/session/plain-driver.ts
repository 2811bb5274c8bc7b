import { fieldName, keyOfField } from '../codec/field.ts';
import { encodePayload, fieldsOfPayload } from '../codec/payload.ts';
import type { SessionDriver } from '../contract/driver.ts';
import type { Fields, SessionStore } from '../contract/store.ts';
import type { RecordCodec, ValueBackend } from '../stores/value-layout.ts';
import { inTwoValues, tombstonesInMemory } from '../stores/two-values.ts';
import { storeOver } from '../stores/value-store.ts';

/**
 * Creates a store on a plain driver. It stores each session as one value, in Astro's format. The backend of the driver may hold other data
 * than sessions. So tombstones are kept in memory, and unreadable values stay.
 */
export function plainDriverStore(name: string, driver: SessionDriver): SessionStore {
  const backend = valuesOf(driver);
  return storeOver(backend, inTwoValues(backend, payloadCodec(name), tombstonesInMemory(), false));
}

function valuesOf(driver: SessionDriver): ValueBackend {
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

function payloadCodec(name: string): RecordCodec {
  return {
    pack({ fields }) {
      const session: Fields = new Map();
      for (const [field, value] of fields) session.set(keyOfField(field) ?? field, value);
      return JSON.stringify(encodePayload(session, Date.now(), () => undefined));
    },
    unpack(payload) {
      const fields: Fields = new Map();
      for (const [key, value] of fieldsOfPayload(name, payload)) fields.set(fieldName(key), value);
      return { fields, expires: Infinity, idleUntil: Infinity };
    },
  };
}
