import { formerRecords, formerSessions, renew, takeOver, type AdoptingRecord, type Former } from './adopt.ts';
import {
  patchRecord,
  plain,
  toSession,
  type Form,
  type Forms,
  type SessionChange,
  type SessionFields,
  type Times,
} from './at-rest.ts';
import { readProcessEnv, type ReadEnv } from './env.ts';
import { createError, isSessionDriverError, isUnclear } from './errors.ts';
import { createGuard, type Guard } from './guard.ts';
import { isSessionId, isUuid, recordKey } from './ids.ts';
import { keepAlive } from './keep-alive.ts';
import {
  isData,
  resolveOptions,
  warnOnce,
  type Adopt,
  type OptionKinds,
  type Resolved,
  type SharedOptions,
} from './options.ts';
import { report, trace, type TraceableOperation } from './report.ts';
import { DEFAULT_TTL_SECONDS, type PatchResult, type SessionStore, type StoreCall } from './store.ts';
import { TOMBSTONE_MS } from './tombstones.ts';

const DEFAULT_TIMEOUT_MS = 5000;

/** What a session held when it was removed: null when there was none, 'retired' when it had been removed already. */
export type Held = SessionFields | 'retired' | null;

/** What the faces (`astro-face.ts`, `session.ts`) stand on: one backend by session id, with every guarantee that backends share. */
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

/** What a driver package says about itself. */
export interface DriverDefinition<Config extends SharedOptions> {
  /** The folder's name, such as `session-redis`. */
  name: string;
  /** The kinds of the driver's own options. */
  options: OptionKinds<Omit<Config, keyof SharedOptions>>;
  /** The variables that `open` reads by itself. Drivers for which they differ share nothing. */
  variables?: readonly string[];
  /** What the backend is opened on, where that is handed in: drivers on the same object share a store, which goes with the object. */
  client?: object;
  /**
   * Opens the backend, when it is first needed. The client is imported here. Throws a `configuration` error for what is missing;
   * connecting may be left to the operations, which bring their own deadline.
   */
  open(config: Resolved<Config>, context: OpenContext): SessionStore | Promise<SessionStore>;
}

export interface OpenContext {
  /** A variable of the server's environment. */
  env: ReadEnv;
  /** The deadline of every operation, the option `timeout` or its default. */
  timeoutMs: number;
  call: StoreCall;
}

/** Where a driver runs, as far as it matters to it. */
export interface Host {
  /** How to read variables. Default: `process.env`. */
  env?: ReadEnv;
  /** In `astro dev`: this driver takes the place of the one that the configuration named before, whose connections are closed. */
  replaces?: boolean;
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
  sealed ??= (await import('./seal.ts')).sealed;
  const [first, ...others] = secrets.map((secret) => sealed!(secret, key));
  return [first!, ...others, ...(orPlain ? [plain] : [])];
}

/** One store and what is known of its health, shared by all drivers of one configuration in this process. */
interface Backend {
  run<Result>(
    operation: TraceableOperation,
    work: (store: SessionStore, call: StoreCall) => Promise<Result>,
  ): Promise<Result>;
  close(): Promise<void>;
}

function openBackend<Config extends SharedOptions>(
  definition: DriverDefinition<Config>,
  options: Resolved<Config>,
  env: ReadEnv,
): Backend {
  let opening: Promise<SessionStore> | undefined;
  let opened: SessionStore | undefined;
  let guard: Guard | undefined;
  const timeoutMs = options.timeout ?? DEFAULT_TIMEOUT_MS;

  const store = async (call: StoreCall): Promise<SessionStore> => {
    const current = (opening ??= (async () => definition.open(options, { env, timeoutMs, call }))());
    const giveUp = (): void => {
      if (opening === current && !opened) opening = undefined;
    };
    current.catch(giveUp);
    // It may never end: a Worker's request that is cancelled takes its work along.
    call.signal.addEventListener('abort', giveUp);
    const ready = await current;
    if (opening === current) opened = ready;
    return ready;
  };

  const probe = async (call: StoreCall): Promise<unknown> =>
    (opened ?? (await store(call))).read(`${options.prefix ?? 'session:'}probe`, call);

  return {
    run(operation, work) {
      const guarded = (guard ??= createGuard({ driver: definition.name, timeoutMs, probe }));
      const attempt = async (call: StoreCall) => {
        const ready = opened ?? (await store(call));
        if (options.idleTtl !== undefined && !ready.atomic) {
          throw createError(
            definition.name,
            'configuration',
            '`idleTtl` needs a backend whose changes are atomic; leave it out.',
          );
        }
        return work(ready, call);
      };
      return keepAlive(trace(operation, definition.name, () => guarded(operation, attempt)));
    },
    async close() {
      const closing = opening;
      opening = opened = undefined;
      await (await closing?.catch(() => undefined))?.close?.();
    },
  };
}

// On globalThis, because several copies of this package in one process are normal, and because `astro dev` evaluates modules anew.
const REGISTRY = Symbol.for('@coatcheck/session-core/backends@2');

type Shelf = Map<string, Backend>;

interface Registry {
  /** Backends that options and variables name. */
  named: Shelf;
  /** Backends on an object that was handed in, such as a client or a Worker's binding: they go when nobody holds the object any more. */
  onObjects: WeakMap<object, Shelf>;
  /** The backend that the configuration in `astro dev` names, and where it stands. */
  configured?: { backend: Backend; shelf: Shelf; key: string };
  /** Names for options that are no plain data. */
  names: WeakMap<object, string>;
}

function shareBackend<Config extends SharedOptions>(
  definition: DriverDefinition<Config>,
  options: Resolved<Config>,
  env: ReadEnv,
  replaces: boolean,
): Backend {
  const holder = globalThis as { [REGISTRY]?: Registry };
  const registry = (holder[REGISTRY] ??= { named: new Map(), onObjects: new WeakMap(), names: new WeakMap() });
  // Keys and lifetimes are the driver's own; everything else makes another connection.
  const {
    ttl: _ttl,
    prefix: _prefix,
    secrets: _secrets,
    adopt: _adopt,
    idleTtl,
    ...identity
  }: Resolved<SharedOptions> = options;
  const variables = (definition.variables ?? []).map(env);
  const objects: object[] = definition.client ? [definition.client] : [];
  const key = JSON.stringify([definition.name, identity, idleTtl !== undefined, variables], (_name, value: unknown) => {
    if (isData(value)) return value;
    objects.push(value as object);
    return nameOf(value as object, registry.names);
  });
  const [object] = objects;
  let shelf = object ? registry.onObjects.get(object) : registry.named;
  if (!shelf) registry.onObjects.set(object!, (shelf = new Map()));

  let backend = shelf.get(key);
  if (!backend) shelf.set(key, (backend = openBackend(definition, options, env)));
  if (replaces) {
    const before = registry.configured;
    registry.configured = { backend, shelf, key };
    if (before && before.backend !== backend) {
      void before.backend.close();
      before.shelf.delete(before.key);
    }
  }
  return backend;
}

function nameOf(object: object, names: WeakMap<object, string>): string {
  let name = names.get(object);
  if (!name) names.set(object, (name = crypto.randomUUID()));
  return name;
}
