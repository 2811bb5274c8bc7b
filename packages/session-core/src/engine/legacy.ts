import { type Forms, living, type SessionFields, toSession } from '../codec/field-codec.ts';
import { fieldsOfPayload } from '../codec/payload.ts';
import { report } from '../contract/diagnostics.ts';
import type { Fields, FormerSessions, SessionStore, StoreCall } from '../contract/store.ts';
import { TOMBSTONE_MS } from '../contract/tombstone.ts';

import { patchRecord, type SessionRecord, toRecord } from './record.ts';

/** Where one session may lie from the time before this driver. */
export interface Former {
  /** What lives of it; null when there is nothing. */
  read(call: StoreCall): Promise<SessionFields | null>;
  /** Removes what was read. */
  remove(call: StoreCall): Promise<void>;
  /** Removes it for good and returns what lived of it. What is no session is left alone. */
  take(call: StoreCall): Promise<SessionFields | null>;
}

/** A session that Astro's own driver for this backend left. */
export function formerSessions(
  driver: string,
  sessions: FormerSessions,
  id: string,
  base: string | undefined,
  onDamaged: () => void,
): Former {
  const find = async (call: StoreCall): Promise<SessionFields | null> => {
    const payload = await sessions.read(id, base, call);
    if (payload === null || payload === undefined) return null;
    try {
      return fieldsOfPayload(driver, payload, onDamaged);
    } catch {
      onDamaged();
      return null;
    }
  };
  const remove = (call: StoreCall): Promise<void> => sessions.remove(id, base, call);
  return {
    read: async (call) => livingOrNull(await find(call)),
    remove,
    async take(call) {
      const found = await find(call);
      if (found) await remove(call);
      return livingOrNull(found);
    },
  };
}

/** A record of ours under another prefix. */
export function formerRecords(store: SessionStore, key: string, forms: Forms, onDamaged: () => void): Former {
  const take = async (call: StoreCall): Promise<SessionFields | null> => {
    const held = await store.retire(key, TOMBSTONE_MS, call);
    return held instanceof Map ? livingOrNull(toSession(held, forms, onDamaged)) : null;
  };
  return {
    async read(call) {
      const fields = await store.read(key, call);
      return fields && livingOrNull(toSession(fields, forms, onDamaged));
    },
    remove: async (call) => void (await take(call)),
    take,
  };
}

function livingOrNull(fields: SessionFields | null): SessionFields | null {
  const alive = fields && living(fields);
  return alive && alive.size > 0 ? alive : null;
}

/** A record, and where it may lie from the time before. */
export interface AdoptingRecord extends SessionRecord {
  formers: Former[];
}

/** Takes over what was left of a session before this driver. Of several who try at once, one does, and the others read what it stored. */
export async function takeOver(record: AdoptingRecord): Promise<SessionFields | null> {
  const { driver, store, call, key, forms, formers, onDamaged } = record;
  if (formers.length === 0) return null;
  for (const former of formers) {
    const found = await former.read(call);
    if (!found) continue;
    const result = await patchRecord(record, { set: new Map(found), mustBeNew: true });
    // Not before: it is safe in its new place now, or somebody has removed it there.
    await former.remove(call);
    if (result !== 'applied') break;
    report('adopted', driver);
    return found;
  }
  // Where there is nothing any more, somebody may have moved it here between this caller's two looks.
  const fields = await store.read(key, call);
  return fields && toSession(fields, forms, onDamaged);
}

/** Brings what lies in an older form into the first. `session` is what was read from `fields`. */
export async function renew(record: SessionRecord, fields: Fields, session: SessionFields): Promise<void> {
  const { store, call, key, forms, times } = record;
  const set: Fields = new Map();
  const expect: Fields = new Map();
  for (const [name, value] of fields) {
    for (const form of forms.slice(1)) {
      const [sessionKey] = form.read(name, value) ?? [];
      if (sessionKey === undefined) continue;
      set.set(sessionKey, session.get(sessionKey)!);
      expect.set(name, value);
    }
  }
  if (set.size === 0) return;
  const change = { ...toRecord({ set, mustExist: true }, times, forms), expect };
  // Who changes one of them meanwhile writes the first form. The session was read, whatever becomes of this: the next read tries again.
  await store.patch(key, change, call).catch(() => undefined);
}
