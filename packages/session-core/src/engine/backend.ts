import type { ReadEnv } from '../config/env.ts';
import { isData, type OptionKinds, type Resolved, type SharedOptions } from '../config/option.ts';
import { trace, type TraceableOperation } from '../contract/diagnostics.ts';
import { createError } from '../contract/errors.ts';
import type { DriverStore } from '../contract/legacy.ts';
import type { StoreCall } from '../contract/store.ts';
import { waitUntil } from '../platform/wait-until.ts';

import { createCircuitBreaker, type CircuitBreaker } from './circuit-breaker.ts';

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
  open(config: Resolved<Config>, context: OpenContext): DriverStore | Promise<DriverStore>;
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

/** One store and what is known of its health, shared by all drivers of one configuration in this process. */
export interface Backend {
  run<Result>(
    operation: TraceableOperation,
    work: (store: DriverStore, call: StoreCall) => Promise<Result>,
  ): Promise<Result>;
  close(): Promise<void>;
}

export function openBackend<Config extends SharedOptions>(
  definition: DriverDefinition<Config>,
  options: Resolved<Config>,
  env: ReadEnv,
): Backend {
  let opening: Promise<DriverStore> | undefined;
  let opened: DriverStore | undefined;
  let breaker: CircuitBreaker | undefined;
  const timeoutMs = options.timeout ?? DEFAULT_TIMEOUT_MS;

  const store = async (call: StoreCall): Promise<DriverStore> => {
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
      const throughBreaker = (breaker ??= createCircuitBreaker({ driver: definition.name, timeoutMs, probe }));
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
      return waitUntil(trace(operation, definition.name, () => throughBreaker(operation, attempt)));
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

export function shareBackend<Config extends SharedOptions>(
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

export const DEFAULT_TIMEOUT_MS = 5000;
