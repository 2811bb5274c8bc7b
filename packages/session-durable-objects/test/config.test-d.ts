import type { DurableObjectNamespace } from '@cloudflare/workers-types';
import { durableObjectsDriver, fromEnv } from '@coatcheck/session-durable-objects';
import durableObjects from '@coatcheck/session-durable-objects/runtime';
import { expectTypeOf } from 'vitest';

declare const env: { SESSIONS: DurableObjectNamespace };

// In a Worker, `client` is the binding itself, as Wrangler types it.
durableObjects({ client: env.SESSIONS });
durableObjects({ namespace: 'CARTS', locationHint: 'weur', jurisdiction: 'eu' });

// In a config, there is only the name: a binding cannot be part of the build.
durableObjectsDriver({ namespace: fromEnv('NAMESPACE') });
// @ts-expect-error
durableObjectsDriver({ client: env.SESSIONS });
// @ts-expect-error Astro's adapter overwrites an option of this name.
durableObjectsDriver({ binding: 'SESSIONS' });

expectTypeOf(durableObjectsDriver).returns.toHaveProperty('entrypoint');
