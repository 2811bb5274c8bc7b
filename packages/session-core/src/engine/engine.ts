import { type Form, type Forms, plain, type SessionFields, toSession } from '../codec/field-codec.ts';
import { readProcessEnv } from '../config/env.ts';
import type { Adopt, Resolved, SharedOptions } from '../config/option.ts';
import { resolveOptions } from '../config/resolve.ts';
import { report, type TraceableOperation } from '../contract/diagnostics.ts';
import { createError, isSessionDriverError, isUnclear } from '../contract/errors.ts';
import { DEFAULT_TTL_SECONDS, type PatchResult, type SessionStore } from '../contract/store.ts';
import { TOMBSTONE_MS } from '../contract/tombstone.ts';
import { warnOnce } from '../platform/warn-once.ts';
import {
  type Backend,
  DEFAULT_TIMEOUT_MS,
  type DriverDefinition,
  type Host,
  openBackend,
  shareBackend,
} from './backend.ts';
import { type AdoptingRecord, type Former, formerRecords, formerSessions, renew, takeOver } from './legacy.ts';
import { patchRecord, type SessionChange, type Times } from './record.ts';

import { isSessionId, isUuid, recordKey } from './session-id.ts';

/** What a session held when it was removed: null when there was none, 'retired' when it had been removed already. */
export type Held = SessionFields | 'retired' | null;

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
   * Removes a session for good and returns what it last held: null when there was none, 'retired' when it had been removed already. An
   * id that cannot be ours has nothing to remove.
   */
  retire(id: string): Promise<Held>;
  /** Removes expired records from backends that do not do so themselves; returns how many. */
  sweep(limit: number): Promise<number>;
  /** Releases the backend; the next operation opens it again. */
  close(): Promise<void>;
}

/**
 * Removes a session again whose removal has failed with this error. It may have been carried out all the same, and then the tombstone that
 * is met is its own: what the session held is not known then (null).
 */
export async function retireAgain(engine: Engine, id: string, error: unknown): Promise<Held> {
  const held = await engine.retire(id);
  return held === 'retired' && isUnclear(error) ? null : held;
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
  return createEngine(driver, () => withOptions(driver, backend, {}), AS_THEY_ARE);
}

/** Which texts are session ids, and under which key each lies. */
interface Ids {
  isId(id: unknown): id is string;
  keyOf: typeof recordKey;
  expected: string;
}

const HASHED: Ids = {
  isId: isSessionId,
  keyOf: recordKey,
  expected: '16 to 128 of the characters A-Z a-z 0-9 _ -',
};

const AS_THEY_ARE: Ids = {
  isId: isUuid,
  keyOf: (id) => id,
  expected: 'a UUID of version 4, because this driver stores sessions under their ids as they are',
};

function createEngine(driver: string, openOnce: () => Opened, { isId, keyOf, expected }: Ids = HASHED): Engine {
  let opened: Opened | undefined;
  // Variables are read here and not when the driver is made: an app that is only built has none.
  const open = (): Opened => (opened ??= openOnce());
  const nextReads = new Map<string, Promise<SessionFields | null>>();
  const onDamaged = (): void => report('damaged-field', driver);

  /** One operation on the record of a session. */
  const run = async <Result>(
    operation: TraceableOperation,
    id: string,
    work: (record: AdoptingRecord) => Promise<Result>,
  ): Promise<Result> => {
    const { backend, prefix, times, secrets } = open();
    const adopt = open().adopt();
    const key = keyOf(id, prefix);
    const forms = secrets ? await sealedForms(secrets, key, adopt !== undefined) : LEGIBLE;
    return backend.run(operation, async (store, call) => {
      const formers: Former[] = [];
      if (adopt?.prefix !== undefined) {
        const former = keyOf(id, adopt.prefix);
        const formerForms: Forms = secrets ? await sealedForms(secrets, former, true) : LEGIBLE;
        formers.push(formerRecords(store, former, formerForms, onDamaged));
      }
      // Their keys are the ids: any other than a UUID could be the name of something else.
      if (adopt && store.former && isUuid(id))
        formers.push(formerSessions(driver, store.former, id, adopt.base, onDamaged));
      return work({ driver, store, call, key, forms, times, formers, onDamaged });
    });
  };

  const readNow = (id: string): Promise<SessionFields | null> =>
    run('read', id, async (record) => {
      const { store, key, call, times } = record;
      const fields = await store.read(key, times.idleMs === undefined ? call : { ...call, touchMs: times.idleMs });
      if (!fields) return takeOver(record);
      const session = toSession(fields, record.forms, onDamaged);
      if (open().adopt() && record.forms.length > 1) await renew(record, fields, session);
      return session;
    });

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
        return readNow(id);
      });
      nextReads.set(id, reading);
      return reading;
    },

    async patch(id, change) {
      if (!isId(id)) throw createError(driver, 'invalid-id', `This is no session id: expected ${expected}.`);
      return run('patch', id, async (record) => {
        let result = await patchRecord(record, change);
        if (result === 'missing' && (await takeOver(record))) result = await patchRecord(record, change);
        if (result === 'conflict') report('conflict', driver);
        return result;
      });
    },

    async retire(id) {
      if (!isId(id)) return null;
      return run('retire', id, async ({ store, call, key, forms, formers }) => {
        const held = await store.retire(key, TOMBSTONE_MS, call);
        let former: SessionFields | null = null;
        for (const { take } of formers) {
          const taken = await take(call).catch((error: unknown) => {
            throw partlyRetired(driver, error);
          });
          former ??= taken;
        }
        return held instanceof Map ? toSession(held, forms, onDamaged) : (held ?? former);
      });
    },

    async sweep(limit) {
      return open().backend.run('sweep', async (store, call) => store.sweep?.(limit, call) ?? 0);
    },

    async close() {
      await opened?.backend.close();
    },
  };
}

/** What fails after the removal itself cannot say that nothing was sent. */
function partlyRetired(driver: string, error: unknown): unknown {
  if (!isSessionDriverError(error) || error.code !== 'unavailable') return error;
  const message =
    'The session was removed, and what `adopt` would take over in its place was not. Remove the session again.';
  return createError(driver, 'interrupted', message, { cause: error });
}

interface Opened {
  backend: Backend;
  prefix: string | undefined;
  times: Times;
  timeoutMs: number;
  secrets: readonly string[] | undefined;
  /** Where to look for sessions from before, until the option says that this is over. */
  adopt(): Resolved<Adopt> | undefined;
}

function withOptions(
  driver: string,
  backend: Backend,
  { prefix, ttl, idleTtl, timeout, secrets, adopt }: Resolved<SharedOptions>,
): Opened {
  return {
    backend,
    prefix,
    times: {
      ttlMs: ttl === false ? undefined : (ttl ?? DEFAULT_TTL_SECONDS) * 1000,
      idleMs: idleTtl === undefined ? undefined : idleTtl * 1000,
    },
    timeoutMs: timeout ?? DEFAULT_TIMEOUT_MS,
    secrets,
    adopt: adopt ? untilOver(driver, adopt as Resolved<Adopt>) : () => undefined,
  };
}

/** The option `adopt` for as long as it counts. */
function untilOver(driver: string, adopt: Resolved<Adopt>): () => Resolved<Adopt> | undefined {
  const end = Date.parse(adopt.until!);
  return () => {
    if (Date.now() < end) return adopt;
    warnOnce(
      driver,
      `\`adopt\` ended at its \`until\`, ${adopt.until}: sessions from before are not looked for any more. Remove the option, and what ` +
        `Astro's own driver left in the backend.`,
    );
    return undefined;
  };
}

const LEGIBLE: Forms = [plain];

let sealed: ((secret: string, recordKey: string) => Form) | undefined;

/** Loaded only where there are secrets: the ciphers are a third of this package. */
async function sealedForms(secrets: readonly string[], key: string, orPlain: boolean): Promise<Forms> {
  sealed ??= (await import('../codec/encrypted.ts')).sealed;
  const [first, ...others] = secrets.map((secret) => sealed!(secret, key));
  return [first!, ...others, ...(orPlain ? [plain] : [])];
}
