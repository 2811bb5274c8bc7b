import type { KVNamespace } from '@cloudflare/workers-types';
import { cloudflareKvDriver, fromEnv } from '@coatcheck/session-cloudflare-kv';
import cloudflareKv from '@coatcheck/session-cloudflare-kv/runtime';
import { expectTypeOf } from 'vitest';

declare const env: { SESSION: KVNamespace };

// In a Worker, the namespace itself as Wrangler types it, or the name of its binding.
cloudflareKv({ client: env.SESSION });
cloudflareKv({ namespace: 'CARTS' });

// In a config, the option is the name: a binding cannot be part of the build.
cloudflareKvDriver({ namespace: fromEnv('NAMESPACE') });
// @ts-expect-error
cloudflareKvDriver({ client: env.SESSION });
// @ts-expect-error Astro's adapter overwrites an option of this name.
cloudflareKvDriver({ binding: 'SESSION' });

expectTypeOf(cloudflareKvDriver).returns.toHaveProperty('entrypoint');
