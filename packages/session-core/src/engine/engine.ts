import { type FieldCodec, type FieldCodecs, plaintext, type SessionFields } from '../codec/field-codec.ts';
import { readProcessEnv } from '../config/env.ts';
import type { MigrateFrom, Resolved, SharedOptions } from '../config/option.ts';
import { resolveOptions } from '../config/resolve.ts';
import { report, type TraceableOperation } from '../contract/diagnostics.ts';
import { createError, isAmbiguous } from '../contract/errors.ts';
import { DEFAULT_TTL_SECONDS, type PatchResult, type SessionStore } from '../contract/store.ts';
import { warnOnce } from '../platform/warn-once.ts';
import {
  type Backend,
  DEFAULT_TIMEOUT_MS,
  type DriverDefinition,
  type Host,
  openBackend,
  shareBackend,
} from './backend.ts';
import type { LegacySource } from './legacy.ts';
import { type ExpiryPolicy, type FinalContents, recordIn, type SessionChange, type SessionRecord } from './record.ts';

import { isSessionId, isUuid, recordKey } from './session-id.ts';

/** What Astro's driver (`astro/`) and `Session` (`session/`) stand on: one backend by session id, with every guarantee that backends share. */
export interface Engine {
  readonly driver: string;
  /** How long one operation may take. */
  readonly timeoutMs: number;
  /** Whether a text can be the id of a session here. */
  isSessionId(id: unknown): id is string;
  /** The live session, or null. Reads of one id issued in the same tick share one call. An id that cannot be ours reads as null. */
  read(id: string): Promise<SessionFields | null>;
  /** Rejects for an id that cannot be ours. */
  patch(id: string, change: SessionChange): Promise<PatchResult>;
  /**
   * Removes a session for good and returns what it last held: null when there was none, 'destroyed' when it had been removed already. An
   * id that cannot be ours has nothing to remove.
   */
  destroy(id: string): Promise<FinalContents>;
  /** Removes expired records from backends that do not do so themselves; returns how many. */
  sweep(limit: number): Promise<number>;
  /** Releases the backend; the next operation opens it again. */
  close(): Promise<void>;
}

/**
 * Removes a session again whose removal has failed with this error. It may have been carried out all the same, and then the tombstone that
 * is met is its own: what the session held is not known then (null).
 */
export async function destroyAgain(engine: Engine, id: string, error: unknown): Promise<FinalContents> {
  const held = await engine.destroy(id);
  return held === 'destroyed' && isAmbiguous(error) ? null : held;
}

/** The engine of a driver that a package defines. */
export function engineFor<Config extends SharedOptions>(
  definition: DriverDefinition<Config>,
  config: Config,
  host: Host = {},
): Engine {
  const env = host.env ?? readProcessEnv;
  return createEngine(definition.name, () => {
    const options = resolveOptions(definition.name, definition.options, config, env);
    return withOptions(definition.name, shareBackend(definition, options, env, host.replaces ?? false), options);
  });
}

/** The engine of a store that is nobody else's, under keys that are the ids themselves: how foreign drivers are used. */
export function engineOver(driver: string, store: SessionStore): Engine {
  const backend = openBackend({ name: driver, options: {}, open: () => store }, {}, readProcessEnv);
  return createEngine(driver, () => withOptions(driver, backend, {}), PLAIN_IDS);
}

/** Which texts are session ids, and under which key each lies. */
interface Ids {
  isId(id: unknown): id is string;
  keyOf: typeof recordKey;
  expected: string;
}

const HASHED_IDS: Ids = {
  isId: isSessionId,
  keyOf: recordKey,
  expected: '16 to 128 of the characters A-Z a-z 0-9 _ -',
};

const PLAIN_IDS: Ids = {
  isId: isUuid,
  keyOf: (id) => id,
  expected: 'a UUID of version 4, because this driver stores sessions under their ids as they are',
};

function createEngine(driver: string, openOnce: () => Opened, { isId, keyOf, expected }: Ids = HASHED_IDS): Engine {
  let opened: Opened | undefined;
  // Variables are read here and not when the driver is made: an app that is only built has none.
  const open = (): Opened => (opened ??= openOnce());
  const nextReads = new Map<string, Promise<SessionFields | null>>();
  const onCorrupt = (): void => report('corrupt-field', driver);

  /** One operation on the record of a session. */
  const run = async <Result>(
    operation: TraceableOperation,
    id: string,
    work: (record: SessionRecord) => Promise<Result>,
  ): Promise<Result> => {
    const { backend, prefix, expiry, secrets } = open();
    const migrateFrom = open().migrateFrom();
    const key = keyOf(id, prefix);
    const codecs = secrets ? await encryptedCodecs(secrets, key, migrateFrom !== undefined) : PLAINTEXT;
    // Loaded only where there may be legacy sessions.
    const legacy = migrateFrom && (await import('./legacy.ts'));
    return backend.run(operation, async (store, call) => {
      const record = recordIn({ store, call, key, codecs, expiry, onCorrupt });
      if (!legacy || !migrateFrom) return work(record);
      const sources: LegacySource[] = [];
      if (migrateFrom.prefix !== undefined) {
        const legacyKey = keyOf(id, migrateFrom.prefix);
        const legacyCodecs = secrets ? await encryptedCodecs(secrets, legacyKey, true) : PLAINTEXT;
        sources.push(legacy.recordUnderPrefix(store, legacyKey, legacyCodecs, call, onCorrupt));
      }
      // Astro's keys are the ids: any id but a UUID could be the name of something else.
      if (store.legacySessions && isUuid(id))
        sources.push(legacy.payloadOfAstro(driver, store.legacySessions, id, migrateFrom.base, call, onCorrupt));
      return work(sources.length > 0 ? legacy.withLegacy(record, driver, sources) : record);
    });
  };

  return {
    driver,

    get timeoutMs() {
      return open().timeoutMs;
    },

    isSessionId: isId,

    read(id) {
      if (!isId(id)) return Promise.resolve(null);
      // Only a read that has not been sent yet may be joined: one that is under way would answer with data from before the
      // caller's own last write.
      const shared = nextReads.get(id);
      if (shared) return shared;
      const reading = Promise.resolve().then(() => {
        nextReads.delete(id);
        return run('read', id, (record) => record.read());
      });
      nextReads.set(id, reading);
      return reading;
    },

    async patch(id, change) {
      if (!isId(id)) throw createError(driver, 'invalid-id', `This is no session id: expected ${expected}.`);
      return run('patch', id, async (record) => {
        const result = await record.patch(change);
        if (result === 'conflict') report('conflict', driver);
        return result;
      });
    },

    async destroy(id) {
      if (!isId(id)) return null;
      return run('destroy', id, (record) => record.destroy());
    },

    async sweep(limit) {
      return open().backend.run('sweep', async (store, call) => store.sweep?.(limit, call) ?? 0);
    },

    async close() {
      await opened?.backend.close();
    },
  };
}

interface Opened {
  backend: Backend;
  prefix: string | undefined;
  expiry: ExpiryPolicy;
  timeoutMs: number;
  secrets: readonly string[] | undefined;
  /** Where to look for sessions from before, until the option says that this is over. */
  migrateFrom(): Resolved<MigrateFrom> | undefined;
}

function withOptions(
  driver: string,
  backend: Backend,
  { prefix, ttl, idleTtl, timeout, secrets, migrateFrom }: Resolved<SharedOptions>,
): Opened {
  return {
    backend,
    prefix,
    expiry: {
      ttlMs: ttl === false ? undefined : (ttl ?? DEFAULT_TTL_SECONDS) * 1000,
      idleMs: idleTtl === undefined ? undefined : idleTtl * 1000,
    },
    timeoutMs: timeout ?? DEFAULT_TIMEOUT_MS,
    secrets,
    migrateFrom: migrateFrom ? untilOver(driver, migrateFrom as Resolved<MigrateFrom>) : () => undefined,
  };
}

/** The option `migrateFrom` for as long as it counts. */
function untilOver(driver: string, migrateFrom: Resolved<MigrateFrom>): () => Resolved<MigrateFrom> | undefined {
  const end = Date.parse(migrateFrom.until!);
  return () => {
    if (Date.now() < end) return migrateFrom;
    warnOnce(
      driver,
      `\`migrateFrom\` ended at its \`until\`, ${migrateFrom.until}: sessions from before are not looked for any more. Remove the option, and what ` +
        `Astro's own driver left in the backend.`,
    );
    return undefined;
  };
}

const PLAINTEXT: FieldCodecs = [plaintext];

let encrypted: ((secret: string, recordKey: string) => FieldCodec) | undefined;

/** Loaded only where there are secrets: the ciphers are a third of this package. */
async function encryptedCodecs(secrets: readonly string[], key: string, orPlain: boolean): Promise<FieldCodecs> {
  encrypted ??= (await import('../codec/encrypted.ts')).encrypted;
  const [first, ...others] = secrets.map((secret) => encrypted!(secret, key));
  return [first!, ...others, ...(orPlain ? [plaintext] : [])];
}
