import { defineDriver, type Host, type SessionDriver } from '@coatcheck/session-core/driver';
import { findNamespace } from './namespace.ts';
import { runtimeKinds, type CloudflareKvRuntimeConfig } from './options.ts';
import { kvStore } from './store.ts';

export type { CloudflareKvRuntimeConfig, KvNamespace } from './options.ts';

/**
 * The driver without Astro. `client` can be the KV namespace itself.
 *
 * @example
 * const driver = cloudflareKv({ client: env.SESSION });
 */
const cloudflareKv: (config?: CloudflareKvRuntimeConfig, host?: Host) => SessionDriver =
  defineDriver<CloudflareKvRuntimeConfig>({
    name: 'session-cloudflare-kv',
    options: runtimeKinds,
    async open({ client, namespace }, { timeoutMs }) {
      if (client && namespace !== undefined) throw (await import('./problems.ts')).bothGiven();
      return kvStore(client ?? (await findNamespace(namespace)), timeoutMs);
    },
  });

export default cloudflareKv;
