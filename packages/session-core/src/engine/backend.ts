import type { ReadEnv } from '../config/env.ts';
import { isData, type OptionKinds, type Resolved, type SharedOptions } from '../config/option.ts';
import { trace, type TraceableOperation } from '../contract/diagnostics.ts';
import { createError, isSessionDriverError, notLoaded } from '../contract/errors.ts';
import type { DriverStore } from '../contract/legacy.ts';
import type { StoreCall } from '../contract/store.ts';
import { waitUntil } from '../platform/wait-until.ts';

import { createCircuitBreaker, type CircuitBreaker } from './circuit-breaker.ts';

/** The definition of a driver, which a driver package passes to `defineDriver`. */
export interface DriverDefinition<Config extends SharedOptions> {
  /** The driver's name, such as `session-redis`. Errors and diagnostics contain it. */
  name: string;
  /** The kinds of the driver's own options. */
  options: OptionKinds<Omit<Config, keyof SharedOptions>>;
  /** The environment variables that `open` reads by itself. Drivers share a store only if these variables have the same values. */
  variables?: readonly string[];
  /**
   * The client or binding that the user passed in. Drivers with the same client share a store. The store is garbage-collected together with
   * the client. Absent: `open` creates the client.
   */
  client?: object;
  /**
   * Opens the backend when it is first needed. Import the client here, with `await import(...)`. It does not have to connect: each
   * operation can do that within its own deadline. When it rejects, the next operation calls it again.
   *
   * @throws an error with the code `configuration` when an option or variable is missing or wrong.
   */
  open(config: Resolved<Config>, context: OpenContext): DriverStore | Promise<DriverStore>;
}

/** What `open` receives besides the options. */
export interface OpenContext {
  /** Reads an environment variable of the server. */
  env: ReadEnv;
  /** The deadline of every operation, in milliseconds: the option `timeout`, or its default. */
  timeoutMs: number;
  /** The operation that opens the backend. Its signal aborts at the operation's deadline. */
  call: StoreCall;
}

/** The environment in which a driver runs. */
export interface Host {
  /**
   * Reads environment variables.
   *
   * @default process.env
   */
  env?: ReadEnv;
  /**
   * For `astro dev`: whether this driver replaces the driver of the earlier configuration, whose connections are closed.
   *
   * @default false
   */
  replaces?: boolean;
}

/** One store with its circuit breaker. All drivers with the same configuration in this process share it. */
export interface Backend {
  /**
   * Runs one operation: opens the store if needed, and applies the deadline, the circuit breaker and tracing.
   *
   * @throws a `SessionDriverError`.
   */
  run<Result>(
    operation: TraceableOperation,
    work: (store: DriverStore, call: StoreCall) => Promise<Result>,
  ): Promise<Result>;
  /** Closes the store. The next operation opens it again. */
  close(): Promise<void>;
}

/** Creates a backend that no other driver shares. Nothing is opened before the first operation. */
export function openBackend<Config extends SharedOptions>(
  definition: DriverDefinition<Config>,
  options: Resolved<Config>,
  env: ReadEnv,
): Backend {
  let opening: Promise<DriverStore> | undefined;
  let opened: DriverStore | undefined;
  /** How often the backend was closed. */
  let closed = 0;
  let breaker: CircuitBreaker | undefined;
  const timeoutMs = options.timeout ?? DEFAULT_TIMEOUT_MS;

  const open = async (call: StoreCall): Promise<DriverStore> => {
    const before = closed;
    let ready: DriverStore;
    try {
      ready = await definition.open(options, { env, timeoutMs, call });
    } catch (error) {
      throw isSessionDriverError(error) ? error : notLoaded(definition.name, error);
    }
    if (closed === before && !opened) return (opened = ready);
    // The first store stays, even if the operation that opened it did not wait: others may use it already, and two stores in one process
    // would not see each other's changes.
    await ready.close?.();
    return opened ?? ready;
  };

  const store = async (call: StoreCall): Promise<DriverStore> => {
    const current = (opening ??= open(call));
    const discard = (): void => {
      if (opening === current && !opened) opening = undefined;
    };
    // After a failure, the next operation opens the store again.
    current.catch(discard);
    // Also after the deadline: in a Worker, opening never settles when the request that started it is canceled.
    call.signal.addEventListener('abort', discard);
    return current;
  };

  const probe = async (call: StoreCall): Promise<unknown> =>
    (opened ?? (await store(call))).read(`${options.prefix ?? 'session:'}probe`, call);

  return {
    run(operation, work) {
      const runGuarded = (breaker ??= createCircuitBreaker({ driver: definition.name, timeoutMs, probe }));
      const attempt = async (call: StoreCall) => {
        const ready = opened ?? (await store(call));
        if (options.idleTtl !== undefined && !ready.atomic) {
          throw createError(
            definition.name,
            'configuration',
            '`idleTtl` needs a backend whose changes are atomic, and this one is not. Remove the option.',
          );
        }
        return work(ready, call);
      };
      return waitUntil(trace(operation, definition.name, () => runGuarded(operation, attempt)));
    },
    async close() {
      const [ready, pending] = [opened, opening];
      closed++;
      opening = opened = undefined;
      // A store that is being opened is closed as soon as it is open.
      await (ready ? ready.close?.() : pending?.catch(() => undefined));
    },
  };
}

// On globalThis, because one process may contain several copies of this package, and because `astro dev` evaluates modules again.
const REGISTRY = Symbol.for('@coatcheck/session-core/backends@2');

/** Backends by configuration. */
type BackendMap = Map<string, Backend>;

interface Registry {
  /** Backends whose options are plain data. They stay open as long as the process runs. */
  byOptions: BackendMap;
  /** Backends on an object from the user, such as a client or a Worker's binding. They are garbage-collected together with the object. */
  byObject: WeakMap<object, BackendMap>;
  /** The backend of the current configuration in `astro dev`, and the map and key under which it is registered. */
  configured?: { backend: Backend; backends: BackendMap; key: string };
  /** Unique names for options that are not plain data, because JSON cannot represent these. */
  names: WeakMap<object, string>;
}

/**
 * Returns the backend that this process already has for the same configuration, or creates one.
 *
 * @param replaces see `Host.replaces`.
 */
export function shareBackend<Config extends SharedOptions>(
  definition: DriverDefinition<Config>,
  options: Resolved<Config>,
  env: ReadEnv,
  replaces: boolean,
): Backend {
  const holder = globalThis as { [REGISTRY]?: Registry };
  const registry = (holder[REGISTRY] ??= { byOptions: new Map(), byObject: new WeakMap(), names: new WeakMap() });
  // Drivers that differ only in these options share a connection, because these options affect only keys, lifetimes and encryption. All
  // others are part of the identity. Of `idleTtl`, only its presence matters: with it, a backend that is not atomic rejects every
  // operation.
  const {
    ttl: _ttl,
    prefix: _prefix,
    secrets: _secrets,
    migrateFrom: _migrateFrom,
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
  let backends = object ? registry.byObject.get(object) : registry.byOptions;
  if (!backends) registry.byObject.set(object!, (backends = new Map()));

  let backend = backends.get(key);
  if (!backend) backends.set(key, (backend = openBackend(definition, options, env)));
  if (replaces) {
    const previous = registry.configured;
    registry.configured = { backend, backends, key };
    if (previous && previous.backend !== backend) {
      void previous.backend.close();
      previous.backends.delete(previous.key);
    }
  }
  return backend;
}

function nameOf(object: object, names: WeakMap<object, string>): string {
  let name = names.get(object);
  if (!name) names.set(object, (name = crypto.randomUUID()));
  return name;
}

/** The default of the option `timeout`, in milliseconds. */
export const DEFAULT_TIMEOUT_MS = 5000;
