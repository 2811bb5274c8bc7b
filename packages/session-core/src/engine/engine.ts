import { type FieldCodec, type FieldCodecs, plaintext, type SessionFields } from '../codec/field-codec.ts';
import { loadDevalue } from '../codec/flat.ts';
import { readProcessEnv } from '../config/env.ts';
import type { MigrateFrom, Resolved, SharedOptions } from '../config/option.ts';
import { resolveOptions } from '../config/resolve.ts';
import { report, type TraceableOperation } from '../contract/diagnostics.ts';
import { createError, isAmbiguous } from '../contract/errors.ts';
import { DEFAULT_TTL_SECONDS, type PatchResult, type SessionStore } from '../contract/store.ts';
import {
  type Backend,
  DEFAULT_TIMEOUT_MS,
  type DriverDefinition,
  type Host,
  openBackend,
  shareBackend,
} from './backend.ts';
import {
  type ExpiryPolicy,
  type FinalContents,
  recordIn,
  type RecordPlace,
  type SessionChange,
  type SessionRecord,
} from './record.ts';

import { isSessionId, isUuid, recordKey } from './session-id.ts';

/**
 * One backend, addressed by session id. Astro's driver (`astro/`) and `Session` (`session/`) are built on it. It adds what all backends
 * share: keys, lifetimes, deadlines, errors, encryption and migration.
 */
export interface Engine {
  /** The driver's name, such as `session-redis`. */
  readonly driver: string;
  /** The deadline of one operation, in milliseconds. */
  readonly timeoutMs: number;
  /** The options `ttl` and `idleTtl`. */
  readonly expiry: ExpiryPolicy;
  /** Whether a value is a valid session id for this driver. */
  isSessionId(id: unknown): id is string;
  /**
   * Resolves to the live session, or to null when there is none or the id is invalid. Reads of one id in the same tick share one operation.
   */
  read(id: string): Promise<SessionFields | null>;
  /**
   * Applies a change to a session.
   *
   * @throws an error with the code `invalid-id` when the id is invalid.
   */
  patch(id: string, change: SessionChange): Promise<PatchResult>;
  /**
   * Destroys a session and resolves to its last contents: to null when there was none or the id is invalid, to 'destroyed' when it had
   * already been destroyed.
   */
  destroy(id: string): Promise<FinalContents>;
  /** Removes up to `limit` expired records, and resolves to their number; to 0 when the backend expires records by itself. */
  sweep(limit: number): Promise<number>;
  /** Closes the backend. The next operation opens it again. */
  close(): Promise<void>;
}

/**
 * Destroys a session again after the first attempt failed with `error`. The first attempt may have succeeded nevertheless. So when the
 * outcome was ambiguous and there is a tombstone now, the tombstone counts as its own, and the result is null (contents unknown) instead of
 * 'destroyed'.
 */
export async function destroyAgain(engine: Engine, id: string, error: unknown): Promise<FinalContents> {
  const contents = await engine.destroy(id);
  return contents === 'destroyed' && isAmbiguous(error) ? null : contents;
}

/** Creates the engine of a driver from its definition. Options are resolved at the first operation. */
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

/**
 * Creates an engine on a store, with the session ids as keys. Used for plain drivers, which are drivers of Astro's interface that are not
 * ours.
 *
 * @param open opens the store at the first operation.
 */
export function engineOver(driver: string, open: () => Promise<SessionStore>): Engine {
  const backend = openBackend({ name: driver, options: {}, open }, {}, readProcessEnv);
  return createEngine(driver, () => withOptions(driver, backend, {}), PLAIN_IDS);
}

/** The valid session ids of a driver, and their keys. */
interface Ids {
  isId(id: unknown): id is string;
  keyOf(id: string, prefix?: string): string | Promise<string>;
  /** Describes a valid id in error messages. */
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
  expected: 'a UUID of version 4, because this driver uses session ids as keys',
};

function createEngine(driver: string, openOnce: () => Opened, { isId, keyOf, expected }: Ids = HASHED_IDS): Engine {
  let opened: Opened | undefined;
  // Environment variables are read at the first operation. They may be missing while the site is built.
  const open = (): Opened => (opened ??= openOnce());
  const nextReads = new Map<string, Promise<SessionFields | null>>();
  const onCorrupt = (): void => report('corrupt-field', driver);

  /** Runs one operation on the record of a session. */
  const run = <Result>(
    operation: TraceableOperation,
    id: string,
    work: (record: SessionRecord) => Promise<Result>,
  ): Promise<Result> => {
    const { backend, prefix, expiry, secrets, migrateFrom } = open();
    return backend.run(operation, async (store, call) => {
      const loading = loadDevalue();
      if (loading) await loading;
      // Loaded on demand, to keep the bundle small.
      const withLegacy = migrateFrom && (await import('./legacy.ts')).migration(driver, migrateFrom);
      const placeUnder = async (keyPrefix?: string): Promise<RecordPlace> => {
        const key = await keyOf(id, keyPrefix);
        return { key, codecs: secrets ? await encryptedCodecs(secrets, key, withLegacy !== undefined) : PLAINTEXT };
      };
      const place = await placeUnder(prefix);
      call.signal.throwIfAborted();
      const record = recordIn({ ...place, store, call, expiry, onCorrupt });
      return work(withLegacy ? await withLegacy(record, { id, store, call, placeUnder, onCorrupt }) : record);
    });
  };

  return {
    driver,

    get timeoutMs() {
      return open().timeoutMs;
    },

    get expiry() {
      return open().expiry;
    },

    isSessionId: isId,

    read(id) {
      if (!isId(id)) return Promise.resolve(null);
      // Share only a read that has not been sent yet. A read in flight may return data from before the caller's own last write.
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
      if (!isId(id)) throw createError(driver, 'invalid-id', `This is not a session id: expected ${expected}.`);
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

/** What an engine knows once its options have been resolved. */
interface Opened {
  backend: Backend;
  prefix: string | undefined;
  expiry: ExpiryPolicy;
  timeoutMs: number;
  secrets: readonly string[] | undefined;
  migrateFrom: Resolved<MigrateFrom> | undefined;
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
      ttlMs: ttl === false ? undefined : milliseconds(ttl ?? DEFAULT_TTL_SECONDS),
      idleMs: idleTtl === undefined ? undefined : milliseconds(idleTtl),
    },
    timeoutMs: timeout ?? DEFAULT_TIMEOUT_MS,
    secrets,
    migrateFrom: (migrateFrom || undefined) as Resolved<MigrateFrom> | undefined,
  };
}

/** A lifetime in whole milliseconds, as stores expect it, and no longer than a timestamp can hold. */
function milliseconds(seconds: number): number {
  return Math.min(Math.ceil(seconds * 1000), 8.64e15);
}

const PLAINTEXT: FieldCodecs = [plaintext];

let encrypted: ((secret: string, recordKey: string) => FieldCodec) | undefined;

/** The codecs for a record. The ciphers are loaded only if there are secrets, because they are a third of this package. */
async function encryptedCodecs(secrets: readonly string[], key: string, orPlain: boolean): Promise<FieldCodecs> {
  encrypted ??= (await import('../codec/encrypted.ts')).encrypted;
  const [first, ...others] = secrets.map((secret) => encrypted!(secret, key));
  return [first!, ...others, ...(orPlain ? [plaintext] : [])];
}
