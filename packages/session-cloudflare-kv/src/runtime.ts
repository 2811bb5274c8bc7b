import { defineDriver, type Host, type SessionDriver } from '@coatcheck/session-core/driver';
import { findNamespace } from './namespace.ts';
import { runtimeKinds, type CloudflareKvRuntimeConfig } from './options.ts';
import { kvStore } from './store.ts';

export type { CloudflareKvRuntimeConfig, KvNamespace } from './options.ts';

/**
 * The driver without Astro. `namespace` can be the KV binding itself.
 *
 * @example
 * const driver = cloudflareKv({ namespace: env.SESSION });
 */
const cloudflareKv: (config?: CloudflareKvRuntimeConfig, host?: Host) => SessionDriver =
  defineDriver<CloudflareKvRuntimeConfig>({
    name: 'session-cloudflare-kv',
    options: runtimeKinds,
    open: async ({ namespace }, { timeoutMs }) => kvStore(await findNamespace(namespace), timeoutMs),
  });

export default cloudflareKv;
