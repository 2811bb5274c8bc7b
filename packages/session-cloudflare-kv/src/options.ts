import {
  string,
  type FromEnv,
  type OptionKind,
  type OptionKinds,
  type SharedOptions,
} from '@coatcheck/session-core/driver';

/** The part of a KV binding that the driver uses. `env.SESSION` in a Worker is such a binding. */
export interface KvNamespace {
  get(key: string, options?: { cacheTtl?: number }): Promise<string | null>;
  put(key: string, value: string, options?: { expirationTtl?: number }): Promise<void>;
  delete(key: string): Promise<void>;
}

/** The options of `cloudflareKvDriver()`. `idleTtl` is refused: changes in KV are not atomic. */
export interface CloudflareKvDriverConfig extends SharedOptions {
  /**
   * The name of the KV binding in the environment of the Worker.
   *
   * @default 'SESSION'
   */
  namespace?: FromEnv<string>;
}

/** The options of the driver without Astro, which can also take the namespace itself. */
export interface CloudflareKvRuntimeConfig extends CloudflareKvDriverConfig {
  /** The KV namespace, such as `env.SESSION`, instead of the name of its binding. The driver never closes it. */
  client?: KvNamespace | undefined;
}

export const configKinds: OptionKinds<Omit<CloudflareKvDriverConfig, keyof SharedOptions>> = { namespace: string };

const client: OptionKind<KvNamespace> = {
  read(raw) {
    if (isNamespace(raw)) return raw;
    throw new Error('expected a KV namespace, such as `env.SESSION`');
  },
};

export const runtimeKinds: OptionKinds<Omit<CloudflareKvRuntimeConfig, keyof SharedOptions>> = {
  ...configKinds,
  client,
};

/**
 * Checks the methods only, so that a replacement in Node counts too, such as a binding of Wrangler's `getPlatformProxy()`. A service binding
 * seems to have every method, also `fetch`.
 */
export function isNamespace(value: unknown): value is KvNamespace {
  const { get, put, fetch } = (value ?? {}) as Partial<KvNamespace> & { fetch?: unknown };
  return typeof get === 'function' && typeof put === 'function' && fetch === undefined;
}
