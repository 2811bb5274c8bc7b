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
import { createError } from './errors.ts';
import { createGuard, type Guard } from './guard.ts';
import { isSessionId, recordKey } from './ids.ts';
import { keepAlive } from './keep-alive.ts';
import { isData, resolveOptions, type Adopt, type OptionKinds, type Resolved, type SharedOptions } from './options.ts';
import { report, trace, type TraceableOperation } from './report.ts';
import { DEFAULT_TTL_SECONDS, type PatchResult, type SessionStore, type StoreCall } from './store.ts';

/** How long a removed session refuses writes: longer than a request is under way. */
export const RETIRE_MS = 60_000;

const DEFAULT_TIMEOUT_MS = 5000;

/** What a session held when it was removed: null when there was none, 'retired' when it had been removed already. */
export type Held = SessionFields | 'retired' | null;

/** What the faces (`astro-face.ts`, `session.ts`) stand on: one backend by session id, with every guarantee that backends share. */
export interface Engine {
  readonly driver: string;
  /** How long one operation may take. */
  readonly timeoutMs: number;
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

/** What a driver package says about itself. */
export interface DriverDefinition<Config extends SharedOptions> {
  /** The folder's name, such as `session-redis`. */
  name: string;
  /** The kinds of the driver's own options. */
  options: OptionKinds<Omit<Config, keyof SharedOptions>>;
  /** The variables that `open` reads by itself. Drivers for which they differ share nothing. */
  variables?: readonly string[];
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
    return withOptions(shareBackend(definition, options, env, host.replaces ?? false), options);
  });
}

/** The engine of a store that is nobody else's, under keys that are the ids themselves: how foreign drivers are used. */
export function engineOver(driver: string, store: SessionStore): Engine {
  const backend = openBackend({ name: driver, options: {}, open: () => store }, {}, readProcessEnv);
  return createEngine(
    driver,
    () => withOptions(backend, {}),
    (id) => id,
  );
}

function createEngine(driver: string, openOnce: () => Opened, keyOf: typeof recordKey = recordKey): Engine {
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
    const { backend, prefix, timeoutMs, times, secrets, adopt } = open();
    const key = keyOf(id, prefix);
    const forms = secrets ? await sealedForms(secrets, key, adopt !== undefined) : LEGIBLE;
    return backend.run(operation, async (store, call) => {
      const formers: Former[] = [];
      if (adopt?.prefix !== undefined) {
        const former = keyOf(id, adopt.prefix);
        const formerForms: Forms = secrets ? await sealedForms(secrets, former, true) : LEGIBLE;
        formers.push(formerRecords(store, former, formerForms, timeoutMs + RETIRE_MS, onDamaged));
      }
      if (adopt && store.former) formers.push(formerSessions(driver, store.former, id, adopt.base, onDamaged));
      return work({ driver, store, call, key, forms, times, formers, onDamaged });
    });
  };

  const readNow = (id: string): Promise<SessionFields | null> =>
    run('read', id, async (record) => {
      const { store, key, call, times } = record;
      const fields = await store.read(key, times.idleMs === undefined ? call : { ...call, touchMs: times.idleMs });
      if (!fields) return takeOver(record);
      const session = toSession(fields, record.forms, onDamaged);
      if (open().adopt && record.forms.length > 1) await renew(record, fields, session);
      return session;
    });

  return {
    driver,

    get timeoutMs() {
      return open().timeoutMs;
    },

    read(id) {
      if (!isSessionId(id)) return Promise.resolve(null);
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
      if (!isSessionId(id)) {
        throw createError(
          driver,
          'invalid-id',
          'This is no session id: expected 16 to 128 of the characters A-Z a-z 0-9 _ -.',
        );
      }
      return run('patch', id, async (record) => {
        let result = await patchRecord(record, change);
        if (result === 'missing' && (await takeOver(record))) result = await patchRecord(record, change);
        if (result === 'conflict') report('conflict', driver);
        return result;
      });
    },

    async retire(id) {
      if (!isSessionId(id)) return null;
      return run('retire', id, async ({ store, call, key, forms, formers }) => {
        // A write that was still young enough when it was begun finds the tombstone when it arrives.
        const held = await store.retire(key, RETIRE_MS + open().timeoutMs, call);
        let former: SessionFields | null = null;
        for (const { read, remove } of formers) {
          former ??= held === null ? await read(call) : null;
          await remove(call);
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

interface Opened {
  backend: Backend;
  prefix: string | undefined;
  times: Times;
  timeoutMs: number;
  secrets: readonly string[] | undefined;
  adopt: Resolved<Adopt> | undefined;
}

function withOptions(
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
    adopt: adopt === true ? {} : ((adopt || undefined) as Resolved<Adopt> | undefined),
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
const REGISTRY = Symbol.for('@coatcheck/session-core/backends@1');

interface Registry {
  backends: Map<string, Backend>;
  /** The backend that the configuration in `astro dev` names, by driver. */
  configured: Map<string, string>;
  /** Names for options that are no plain data, such as a Worker's binding. */
  names: WeakMap<object, string>;
}

function shareBackend<Config extends SharedOptions>(
  definition: DriverDefinition<Config>,
  options: Resolved<Config>,
  env: ReadEnv,
  replaces: boolean,
): Backend {
  const holder = globalThis as { [REGISTRY]?: Registry };
  const registry = (holder[REGISTRY] ??= { backends: new Map(), configured: new Map(), names: new WeakMap() });
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
  const key = JSON.stringify([definition.name, identity, idleTtl !== undefined, variables], (_name, value: unknown) =>
    isData(value) ? value : nameOf(value as object, registry.names),
  );

  let backend = registry.backends.get(key);
  if (!backend) registry.backends.set(key, (backend = openBackend(definition, options, env)));
  if (replaces) {
    const before = registry.configured.get('astro');
    registry.configured.set('astro', key);
    if (before !== undefined && before !== key) {
      void registry.backends.get(before)?.close();
      registry.backends.delete(before);
    }
  }
  return backend;
}

function nameOf(object: object, names: WeakMap<object, string>): string {
  let name = names.get(object);
  if (!name) names.set(object, (name = crypto.randomUUID()));
  return name;
}
