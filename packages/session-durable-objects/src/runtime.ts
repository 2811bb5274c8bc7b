import { defineDriver, type Host, type SessionDriver } from '@coatcheck/session-core/driver';
import { findLegacyNamespace, findNamespace } from './namespace.ts';
import { runtimeKinds, type DurableObjectsRuntimeConfig } from './options.ts';
import { durableObjectsStore } from './store.ts';

export type { DurableObjectsRuntimeConfig, SessionNamespace } from './options.ts';

/**
 * The driver without Astro. `client` can be the Durable Object binding itself.
 *
 * @example
 * const driver = durableObjects({ client: env.SESSIONS });
 */
const durableObjects: (config?: DurableObjectsRuntimeConfig, host?: Host) => SessionDriver =
  defineDriver<DurableObjectsRuntimeConfig>({
    name: 'session-durable-objects',
    options: runtimeKinds,
    open: async ({ client, namespace, ...place }, { timeoutMs }) =>
      durableObjectsStore(client ?? (await findNamespace(namespace)), { ...place, timeoutMs, findLegacyNamespace }),
  });

export default durableObjects;
