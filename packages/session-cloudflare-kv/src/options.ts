import {
  string,
  type FromEnv,
  type OptionKind,
  type OptionKinds,
  type SharedOptions,
  type EnvRef,
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

/** The options of the driver without Astro, which can also take the binding itself. */
export interface CloudflareKvRuntimeConfig extends SharedOptions {
  /**
   * The KV binding, such as `env.SESSION`, or its name in the environment of the Worker.
   *
   * @default 'SESSION'
   */
  namespace?: string | KvNamespace | EnvRef | undefined;
}

export const configKinds: OptionKinds<Omit<CloudflareKvDriverConfig, keyof SharedOptions>> = { namespace: string };

const nameOrBinding: OptionKind<string | KvNamespace> = {
  read(raw) {
    if (isNamespace(raw)) return raw;
    if (typeof raw === 'string' && raw !== '') return raw;
    throw new Error('expected a KV binding, or the name of one');
  },
};

export const runtimeKinds: OptionKinds<Omit<CloudflareKvRuntimeConfig, keyof SharedOptions>> = {
  namespace: nameOrBinding,
};

/** Checks the methods only, so that a replacement in Node counts too, such as a binding of Wrangler's `getPlatformProxy()`. */
export function isNamespace(value: unknown): value is KvNamespace {
  const { get, put, delete: remove } = (value ?? {}) as Partial<KvNamespace>;
  return typeof get === 'function' && typeof put === 'function' && typeof remove === 'function';
}
