import type { D1Database } from '@cloudflare/workers-types';
import { d1Driver, fromEnv } from '@coatcheck/session-d1';
import d1 from '@coatcheck/session-d1/runtime';
import { expectTypeOf } from 'vitest';

declare const env: { DB: D1Database };

// In a Worker, the client is the binding itself, as Wrangler types it.
d1({ client: env.DB });
d1({ database: 'SHOP' });

// In a config, the option is the name: a binding cannot be part of the build.
d1Driver({ database: fromEnv('DATABASE') });
// @ts-expect-error
d1Driver({ client: env.DB });
// @ts-expect-error Astro's adapter overwrites an option of this name.
d1Driver({ binding: 'DB' });

expectTypeOf(d1Driver).returns.toHaveProperty('entrypoint');
