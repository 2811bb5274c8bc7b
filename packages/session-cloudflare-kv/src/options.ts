import {
  string,
  type FromEnv,
  type OptionKind,
  type OptionKinds,
  type SharedOptions,
  type EnvRef,
} from '@coatcheck/session-core/driver';

/** What is used of a binding: `env.SESSION` of a Worker is one. */
export interface KvNamespace {
  get(key: string, options?: { cacheTtl?: number }): Promise<string | null>;
  put(key: string, value: string, options?: { expirationTtl?: number }): Promise<void>;
  delete(key: string): Promise<void>;
}

export interface CloudflareKvDriverConfig extends SharedOptions {
  /** The name of the KV binding in the Worker's environment. Default: `SESSION`. */
  namespace?: FromEnv<string>;
}

export interface CloudflareKvRuntimeConfig extends SharedOptions {
  /** The KV binding, such as `env.SESSION`, or its name in the Worker's environment. Default: `SESSION`. */
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

/** By shape: a binding of a Worker, or what stands for one in Node, such as Wrangler's `getPlatformProxy()`. */
export function isNamespace(value: unknown): value is KvNamespace {
  const { get, put, delete: remove } = (value ?? {}) as Partial<KvNamespace>;
  return typeof get === 'function' && typeof put === 'function' && typeof remove === 'function';
}
