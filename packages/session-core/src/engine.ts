import { readProcessEnv, type ReadEnv } from './env.ts';
import { createError } from './errors.ts';
import { expiryOf, fieldName, isExpired, keyOfField } from './fields.ts';
import { createGuard, type Guard } from './guard.ts';
import { isSessionId, recordKey } from './ids.ts';
import { keepAlive } from './keep-alive.ts';
import { isData, resolveOptions, type OptionKinds, type Resolved, type SharedOptions } from './options.ts';
import { report } from './report.ts';
import type { Change, Fields, Lifetime, PatchResult, SessionStore, StoreCall } from './store.ts';

/** How long a removed session refuses writes: longer than a request is under way. */
export const RETIRE_MS = 60_000;

const DEFAULT_TTL_SECONDS = 30 * 24 * 60 * 60;
const DEFAULT_TIMEOUT_MS = 5000;

/** The fields of a session by session key. Shared between readers: not to be changed. */
export type SessionFields = ReadonlyMap<string, string>;

/** What a session held when it was removed: null when there was none, 'retired' when it had been removed already. */
export type Held = SessionFields | 'retired' | null;

/** A change in terms of a session; the engine turns it into a `Change` of a record. Names are session keys. */
export interface SessionChange {
  set: Fields;
  ifAbsent?: Fields;
  unset?: readonly string[];
  purge?: readonly string[];
  expect?: ReadonlyMap<string, string | null>;
  mustExist?: boolean;
  /** The expiries of fields that the writer knows of and leaves as they are. */
  untouched?: Iterable<number | undefined>;
}

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
    return withTimes(shareBackend(definition, options, env, host.replaces ?? false), options);
  });
}

/** The engine of a store that is nobody else's, under keys that are the ids themselves: how foreign drivers are used. */
export function engineOver(driver: string, store: SessionStore): Engine {
  const backend = openBackend({ name: driver, options: {}, open: () => store }, {}, readProcessEnv);
  return createEngine(
    driver,
    () => withTimes(backend, {}),
    (id) => id,
  );
}

function createEngine(driver: string, openOnce: () => Opened, keyOf: typeof recordKey = recordKey): Engine {
  let opened: Opened | undefined;
  // Variables are read here and not when the driver is made: an app that is only built has none.
  const open = (): Opened => (opened ??= openOnce());
  const nextReads = new Map<string, Promise<SessionFields | null>>();

  const readNow = async (id: string): Promise<SessionFields | null> => {
    const { backend, prefix, idleMs } = open();
    const fields = await backend.run('read', (store, call) => store.read(keyOf(id, prefix), withTouch(call, idleMs)));
    return fields && toSession(fields, driver);
  };

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
      const { backend, prefix, ttlMs, idleMs } = open();
      const recordChange = toRecord(change, ttlMs, idleMs);
      return backend.run('patch', (store, call) => store.patch(keyOf(id, prefix), recordChange, call));
    },

    async retire(id) {
      if (!isSessionId(id)) return null;
      const { backend, prefix, timeoutMs } = open();
      // A write that was still young enough when it was begun finds the tombstone when it arrives.
      const retireForMs = RETIRE_MS + timeoutMs;
      const held = await backend.run('retire', (store, call) => store.retire(keyOf(id, prefix), retireForMs, call));
      return held instanceof Map ? toSession(held, driver) : held;
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
  ttlMs: number | undefined;
  idleMs: number | undefined;
  timeoutMs: number;
}

function withTimes(backend: Backend, { prefix, ttl, idleTtl, timeout }: Resolved<SharedOptions>): Opened {
  return {
    backend,
    prefix,
    ttlMs: ttl === false ? undefined : (ttl ?? DEFAULT_TTL_SECONDS) * 1000,
    idleMs: idleTtl === undefined ? undefined : idleTtl * 1000,
    timeoutMs: timeout ?? DEFAULT_TIMEOUT_MS,
  };
}

/** One store and what is known of its health, shared by all drivers of one configuration in this process. */
interface Backend {
  run<Result>(operation: string, work: (store: SessionStore, call: StoreCall) => Promise<Result>): Promise<Result>;
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
      guard ??= createGuard({ driver: definition.name, timeoutMs, probe });
      const running = guard(operation, async (call) => {
        const ready = opened ?? (await store(call));
        if (options.idleTtl !== undefined && !ready.atomic) {
          throw createError(
            definition.name,
            'configuration',
            '`idleTtl` needs a backend whose changes are atomic; leave it out.',
          );
        }
        return work(ready, call);
      });
      return keepAlive(running);
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
  const { ttl: _ttl, prefix: _prefix, idleTtl, ...identity }: Resolved<SharedOptions> = options;
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

function withTouch(call: StoreCall, touchMs: number | undefined): StoreCall & { touchMs?: number } {
  return touchMs === undefined ? call : { ...call, touchMs };
}

function toSession(fields: Fields, driver: string): SessionFields {
  for (const name of fields.keys()) {
    if (!name.startsWith('"')) continue;
    const renamed: Fields = new Map();
    for (const [stored, value] of fields) {
      const key = keyOfField(stored);
      if (key === undefined) report('damaged-field', driver);
      else renamed.set(key, value);
    }
    return renamed;
  }
  return fields;
}

/** Exported for tests of stores, which take changes in this form. */
export function toRecord(
  change: SessionChange,
  ttlMs: number | undefined,
  idleMs: number | undefined,
  now: number = Date.now(),
): Change {
  const set: Fields = new Map();
  const unset = (change.unset ?? []).map(fieldName);
  let lifetimeMs = -Infinity;
  const outlives = (expires: number | undefined): void => {
    lifetimeMs = Math.max(lifetimeMs, expires === undefined ? (ttlMs ?? Infinity) : expires - now);
  };

  for (const [key, value] of change.set) {
    const expires = expiryOf(value);
    // What is past when it is set is not there afterwards.
    if (isExpired(expires, now)) unset.push(fieldName(key));
    else set.set(fieldName(key), value);
    if (!isExpired(expires, now)) outlives(expires);
  }
  for (const value of change.ifAbsent?.values() ?? []) outlives(expiryOf(value));
  for (const expires of change.untouched ?? []) outlives(expires);

  return {
    set,
    unset,
    lifetimeMs: toLifetime(lifetimeMs, ttlMs),
    now,
    ...(change.ifAbsent && { ifAbsent: byFieldName(change.ifAbsent) }),
    ...(change.purge && { purge: change.purge.map(fieldName) }),
    ...(change.expect && { expect: byFieldName(change.expect) }),
    ...(change.mustExist && { mustExist: true }),
    ...(ttlMs !== undefined && { capMs: ttlMs }),
    ...(idleMs !== undefined && { idleMs }),
  };
}

function toLifetime(longest: number, ttlMs: number | undefined): Lifetime {
  if (longest === Infinity) return 'never';
  // A session without entries has nothing to live for; it goes by itself even where others live for ever.
  if (longest === -Infinity) return ttlMs ?? DEFAULT_TTL_SECONDS * 1000;
  return Math.max(Math.floor(longest), 0);
}

function byFieldName<Value>(map: ReadonlyMap<string, Value>): Map<string, Value> {
  return new Map([...map].map(([key, value]) => [fieldName(key), value]));
}
