import { type FieldCodecs, type SessionFields, toSession, unexpired } from '../codec/field-codec.ts';
import { fieldsOfPayload } from '../codec/payload.ts';
import { report } from '../contract/diagnostics.ts';
import { createError, isSessionDriverError } from '../contract/errors.ts';
import type { LegacySessions } from '../contract/legacy.ts';
import type { SessionStore, StoreCall } from '../contract/store.ts';
import { TOMBSTONE_MS } from '../contract/tombstone.ts';

import type { SessionRecord } from './record.ts';

/** A place where a legacy session may be stored. Each is for one session id and one operation. */
export interface LegacySource {
  /** Resolves to the unexpired fields; to null when there are none. */
  read(): Promise<SessionFields | null>;
  /** Removes the legacy session. Called only after `read` has found one. */
  remove(): Promise<void>;
  /**
   * Removes the legacy session and resolves to its unexpired fields; to null when there are none. Data that is not a session is not
   * removed.
   */
  take(): Promise<SessionFields | null>;
}

/** A session that Astro's own driver stored in this backend. */
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

/**
 * A record that this driver stored under another prefix. Removing it leaves a tombstone, so late writes of an earlier deployment are
 * rejected.
 */
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
 * Adds migration to a record. Reading or patching a missing session first migrates it from a legacy source. Destroying a session also
 * destroys its legacy sessions.
 */
export function withLegacy(record: SessionRecord, driver: string, sources: readonly LegacySource[]): SessionRecord {
  // When several callers migrate one session at once, `mustBeNew` lets only one of them store it. The others read the stored session.
  const migrate = async (): Promise<SessionFields | null> => {
    for (const source of sources) {
      const found = await source.read();
      if (!found) continue;
      const result = await record.patch({ set: new Map(found), mustBeNew: true });
      // Only after the patch: now the session is stored under its new key, or was destroyed there.
      await source.remove();
      if (result !== 'applied') break;
      report('migrated', driver);
      return found;
    }
    // Another caller may have migrated the session since the first read.
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

/** The code `unavailable` means that nothing was stored. It would be wrong here, because the session itself has been destroyed already. */
function partlyDestroyed(driver: string, error: unknown): unknown {
  if (!isSessionDriverError(error) || error.code !== 'unavailable') return error;
  const message =
    'The session was destroyed, but its legacy session, which `migrateFrom` would migrate, was not. Destroy the session again.';
  return createError(driver, 'interrupted', message, { cause: error });
}
