import {
  string,
  type FromEnv,
  type BindingKind,
  binding,
  type OptionKinds,
  type SharedOptions,
} from '@coatcheck/session-core/driver';

/** The options of `durableObjectsDriver()`. */
export interface DurableObjectsDriverConfig extends SharedOptions {
  /**
   * The name of the Durable Object binding in the environment of the Worker.
   *
   * @default 'SESSIONS'
   */
  namespace?: FromEnv<string>;
  /**
   * Where to create the objects of new sessions, such as `weur`. Counts only at the first access of a session, and is not guaranteed.
   *
   * @default near the first request of the session
   */
  locationHint?: FromEnv<string>;
  /**
   * Where the objects must run and store their data, such as `eu`. Sessions of another jurisdiction are not found.
   *
   * @default anywhere
   */
  jurisdiction?: FromEnv<string>;
}

/** The options of the driver without Astro, which can also take the binding itself. */
export interface DurableObjectsRuntimeConfig extends DurableObjectsDriverConfig {
  /** The Durable Object binding, such as `env.SESSIONS`, instead of `namespace`. */
  client?: SessionNamespace | undefined;
}

/** The part of a Durable Object binding that the driver uses. */
export interface SessionNamespace {
  idFromName(name: string): object;
  // A method, so that the namespace of any class is accepted: Wrangler types bindings without knowing this package.
  // oxlint-disable-next-line typescript/no-explicit-any
  get(id: any, options?: any): any;
  // oxlint-disable-next-line typescript/no-explicit-any
  jurisdiction(jurisdiction: any): any;
}

/** The part of a KV binding that `migrateFrom` uses. */
export interface LegacyNamespace {
  get(key: string, options: { cacheTtl: number }): Promise<string | null>;
  delete(key: string): Promise<void>;
}

export const configKinds: OptionKinds<Omit<DurableObjectsDriverConfig, keyof SharedOptions>> = {
  namespace: string,
  locationHint: string,
  jurisdiction: string,
};

export const sessionNamespace: BindingKind<SessionNamespace> = binding('a Durable Object binding', 'idFromName', 'get');

export const legacyNamespace: BindingKind<LegacyNamespace> = binding('a KV namespace', 'get', 'delete');

export const runtimeKinds: OptionKinds<Omit<DurableObjectsRuntimeConfig, keyof SharedOptions>> = {
  ...configKinds,
  client: sessionNamespace,
};
