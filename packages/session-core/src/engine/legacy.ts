import { type SessionFields, toSession, unexpired } from '../codec/field-codec.ts';
import { fieldsOfPayload } from '../codec/payload.ts';
import type { MigrateFrom, Resolved } from '../config/option.ts';
import { report } from '../contract/diagnostics.ts';
import { createError, isSessionDriverError } from '../contract/errors.ts';
import type { DriverStore, LegacySessions } from '../contract/legacy.ts';
import type { SessionStore, StoreCall } from '../contract/store.ts';
import { TOMBSTONE_MS } from '../contract/tombstone.ts';
import { warnOnce } from '../platform/warn-once.ts';
import type { RecordPlace, SessionRecord } from './record.ts';
import { isUuid } from './session-id.ts';

/**
 * Returns the decorator that adds migration to a record, until the migration ends. After that, logs a warning once and returns undefined.
 */
export function migration(
  driver: string,
  options: Resolved<MigrateFrom>,
): ((record: SessionRecord, context: LegacyContext) => Promise<SessionRecord>) | undefined {
  if (Date.now() < Date.parse(options.until!))
    return async (record, context) => withLegacy(record, driver, await sourcesOf(driver, options, context));
  warnOnce(
    driver,
    `The migration ended on ${options.until}, the \`until\` of \`migrateFrom\`. Remove the option, and the sessions that Astro's own ` +
      'driver left in the backend.',
  );
  return undefined;
}

/** A place where a legacy session may be stored. Each is for one session id and one operation. */
interface LegacySource {
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

/** What is known about the session of a record. */
interface LegacyContext {
  id: string;
  store: DriverStore;
  call: StoreCall;
  /** The place of the session under another prefix. */
  placeUnder(prefix: string): Promise<RecordPlace>;
  /** Called for each stored field that could not be decoded. */
  onCorrupt(): void;
}

async function sourcesOf(
  driver: string,
  { base, prefix }: Resolved<MigrateFrom>,
  { store, id, ...context }: LegacyContext,
): Promise<LegacySource[]> {
  const sources: LegacySource[] = [];
  if (prefix !== undefined) sources.push(recordUnderPrefix(store, await context.placeUnder(prefix), context));
  // Astro's driver uses ids as keys. Any id but a UUID could be the key of something else.
  if (store.legacySessions && isUuid(id)) sources.push(payloadOfAstro(driver, store.legacySessions, id, base, context));
  return sources;
}

type SourceContext = Pick<LegacyContext, 'call' | 'onCorrupt'>;

/** A session that Astro's own driver stored in this backend. */
function payloadOfAstro(
  driver: string,
  sessions: LegacySessions,
  id: string,
  base: string | undefined,
  { call, onCorrupt }: SourceContext,
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
function recordUnderPrefix(
  store: SessionStore,
  { key, codecs }: RecordPlace,
  { call, onCorrupt }: SourceContext,
): LegacySource {
  const take = async (): Promise<SessionFields | null> => {
    const contents = await store.destroy(key, TOMBSTONE_MS, call);
    return contents instanceof Map ? unexpiredOrNull(toSession(contents, codecs, onCorrupt)) : null;
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
  if (!fields) return null;
  const found = unexpired(fields);
  return found.size > 0 ? Object.assign(found, { created: fields.created }) : null;
}

/**
 * Adds migration to a record. Reading or patching a missing session first migrates it from a legacy source. Destroying a session also
 * destroys its legacy sessions.
 */
function withLegacy(record: SessionRecord, driver: string, sources: readonly LegacySource[]): SessionRecord {
  // When several callers migrate one session at once, `mustBeNew` lets only one of them store it. The others read the stored session.
  const migrate = async (): Promise<SessionFields | null> => {
    for (const source of sources) {
      const found = await source.read();
      if (!found) continue;
      const result = await record.patch({ set: new Map(found), mustBeNew: true, created: found.created ?? null });
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
      const contents = await record.destroy();
      let legacy: SessionFields | null = null;
      for (const source of sources) {
        const taken = await source.take().catch((error: unknown) => {
          throw partlyDestroyed(driver, error);
        });
        legacy ??= taken;
      }
      return contents ?? legacy;
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
