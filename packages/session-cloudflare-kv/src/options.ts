import {
  string,
  type FromEnv,
  type BindingKind,
  binding,
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

export const kvNamespace: BindingKind<KvNamespace> = binding('a KV namespace, such as `env.SESSION`', 'get', 'put');

export const runtimeKinds: OptionKinds<Omit<CloudflareKvRuntimeConfig, keyof SharedOptions>> = {
  ...configKinds,
  client: kvNamespace,
};
