import { type FieldCodecs, type SessionFields, toSession, unexpired } from '../codec/field-codec.ts';
import { fieldsOfPayload } from '../codec/payload.ts';
import { report } from '../contract/diagnostics.ts';
import { createError, isSessionDriverError } from '../contract/errors.ts';
import type { LegacySessions } from '../contract/legacy.ts';
import type { SessionStore, StoreCall } from '../contract/store.ts';
import { TOMBSTONE_MS } from '../contract/tombstone.ts';

import type { SessionRecord } from './record.ts';

/** Where one session may lie from the time before this driver. */
export interface LegacySource {
  /** Its unexpired fields; null when there are none. */
  read(): Promise<SessionFields | null>;
  /** Removes what was read. */
  remove(): Promise<void>;
  /** Removes it for good and returns its unexpired fields. What is no session is left alone. */
  take(): Promise<SessionFields | null>;
}

/** A session that Astro's own driver for this backend left. */
export function payloadOfAstro(
  driver: string,
  sessions: LegacySessions,
  id: string,
  base: string | undefined,
  call: StoreCall,
  onCorrupt: () => void,
): LegacySource {
  const find = async (): Promise<SessionFields | null> => {
    const payload = await sessions.read(id, base, call);
    if (payload === null || payload === undefined) return null;
    try {
      return fieldsOfPayload(driver, payload, onCorrupt);
    } catch {
      onCorrupt();
      return null;
    }
  };
  const remove = (): Promise<void> => sessions.remove(id, base, call);
  return {
    read: async () => unexpiredOrNull(await find()),
    remove,
    async take() {
      const found = await find();
      if (found) await remove();
      return unexpiredOrNull(found);
    },
  };
}

/** A record of ours under another prefix. */
export function recordUnderPrefix(
  store: SessionStore,
  key: string,
  codecs: FieldCodecs,
  call: StoreCall,
  onCorrupt: () => void,
): LegacySource {
  const take = async (): Promise<SessionFields | null> => {
    const held = await store.destroy(key, TOMBSTONE_MS, call);
    return held instanceof Map ? unexpiredOrNull(toSession(held, codecs, onCorrupt)) : null;
  };
  return {
    async read() {
      const fields = await store.read(key, call);
      return fields && unexpiredOrNull(toSession(fields, codecs, onCorrupt));
    },
    remove: async () => void (await take()),
    take,
  };
}

function unexpiredOrNull(fields: SessionFields | null): SessionFields | null {
  const found = fields && unexpired(fields);
  return found && found.size > 0 ? found : null;
}

/**
 * The same record, for as long as there may be legacy sessions: reading or patching a missing session migrates it from its legacy source,
 * and destroying a session destroys it there, too.
 */
export function withLegacy(record: SessionRecord, driver: string, sources: readonly LegacySource[]): SessionRecord {
  // Of several callers that migrate one session at once, one stores it, and the others read what it stored.
  const migrate = async (): Promise<SessionFields | null> => {
    for (const source of sources) {
      const found = await source.read();
      if (!found) continue;
      const result = await record.patch({ set: new Map(found), mustBeNew: true });
      // Only now: the session is safe in its new place, or was destroyed there.
      await source.remove();
      if (result !== 'applied') break;
      report('migrated', driver);
      return found;
    }
    // Another caller may have moved it here between this caller's two reads.
    return record.read();
  };

  return {
    read: async () => (await record.read()) ?? migrate(),

    async patch(change) {
      const result = await record.patch(change);
      return result === 'missing' && (await migrate()) ? record.patch(change) : result;
    },

    async destroy() {
      const held = await record.destroy();
      let legacy: SessionFields | null = null;
      for (const source of sources) {
        const taken = await source.take().catch((error: unknown) => {
          throw partlyDestroyed(driver, error);
        });
        legacy ??= taken;
      }
      return held ?? legacy;
    },
  };
}

/** What fails after the removal itself cannot say that nothing was sent. */
function partlyDestroyed(driver: string, error: unknown): unknown {
  if (!isSessionDriverError(error) || error.code !== 'unavailable') return error;
  const message =
    'The session was destroyed, but its legacy session, which `migrateFrom` would migrate, was not. Destroy the session again.';
  return createError(driver, 'interrupted', message, { cause: error });
}
