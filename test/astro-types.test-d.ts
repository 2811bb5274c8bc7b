import coatcheck from '@coatcheck/astro';
import { cloudflareKvDriver } from '@coatcheck/session-cloudflare-kv';
import cloudflareKv from '@coatcheck/session-cloudflare-kv/runtime';
import { fsDriver } from '@coatcheck/session-fs';
import fs from '@coatcheck/session-fs/runtime';
import { memoryDriver } from '@coatcheck/session-memory';
import memory from '@coatcheck/session-memory/runtime';
import { netlifyBlobsDriver } from '@coatcheck/session-netlify-blobs';
import netlifyBlobs from '@coatcheck/session-netlify-blobs/runtime';
import { redisDriver } from '@coatcheck/session-redis';
import redis from '@coatcheck/session-redis/runtime';
import { fromUnstorage } from '@coatcheck/session-unstorage';
import { upstashDriver } from '@coatcheck/session-upstash';
import upstash from '@coatcheck/session-upstash/runtime';
import { sqliteDriver } from '@coatcheck/session-sqlite';
import { postgresDriver } from '@coatcheck/session-postgres';
import { d1Driver } from '@coatcheck/session-d1';
import { durableObjectsDriver } from '@coatcheck/session-durable-objects';
import { libsqlDriver } from '@coatcheck/session-libsql';
import type { SessionDriver, SessionDriverConfig } from '@coatcheck/session-core';
import type * as astro6 from 'astro-6';
import { defineConfig as defineConfig6 } from 'astro-6/config';
import type * as astro7 from 'astro-7';
import { defineConfig as defineConfig7 } from 'astro-7/config';
import { expectTypeOf } from 'vitest';

// The one line that a site adds compiles, with all other options of `session`.
defineConfig6({ session: { driver: redisDriver() } });
defineConfig7({ session: { driver: redisDriver() } });
defineConfig6({ session: { driver: upstashDriver() } });
defineConfig7({ session: { driver: upstashDriver() } });
defineConfig6({ session: { driver: cloudflareKvDriver() } });
defineConfig7({ session: { driver: cloudflareKvDriver() } });
defineConfig6({ session: { driver: netlifyBlobsDriver() } });
defineConfig7({ session: { driver: netlifyBlobsDriver() } });
defineConfig6({ session: { driver: fsDriver() } });
defineConfig7({ session: { driver: fsDriver() } });
defineConfig6({ session: { driver: sqliteDriver() } });
defineConfig7({ session: { driver: sqliteDriver() } });
defineConfig6({ session: { driver: postgresDriver() } });
defineConfig7({ session: { driver: postgresDriver() } });
defineConfig6({ session: { driver: d1Driver() } });
defineConfig7({ session: { driver: d1Driver() } });
defineConfig6({ session: { driver: durableObjectsDriver() } });
defineConfig7({ session: { driver: durableObjectsDriver() } });
defineConfig6({ session: { driver: libsqlDriver() } });
defineConfig7({ session: { driver: libsqlDriver() } });
// The entrypoint for a package without a config function.
defineConfig6({ session: { driver: { entrypoint: new URL('./src/session-driver.ts', import.meta.url) } } });
defineConfig7({ session: { driver: { entrypoint: new URL('./src/session-driver.ts', import.meta.url) } } });
defineConfig6({ session: { driver: memoryDriver({ maxSessions: 10 }), ttl: 60, cookie: { name: 'shop' } } });
defineConfig7({ session: { driver: memoryDriver({ maxSessions: 10 }), ttl: 60, cookie: { name: 'shop' } } });
defineConfig7({ session: { driver: redisDriver({ url: process.env['REDIS_URL'] }) } });

// The integration, with all its options.
defineConfig6({ integrations: [coatcheck()], session: { driver: redisDriver() } });
defineConfig7({ integrations: [coatcheck()], session: { driver: redisDriver() } });
defineConfig7({
  integrations: [coatcheck({ schema: './src/schema.ts', renewCookie: true, ignore: ['no-driver', 'unsuited-driver'] })],
});
// @ts-expect-error -- there is no such advice
coatcheck({ ignore: ['nothing'] });

// Our types and Astro's types are assignable to each other.
expectTypeOf<SessionDriver>().toExtend<astro6.SessionDriver>();
expectTypeOf<SessionDriver>().toExtend<astro7.SessionDriver>();
expectTypeOf<astro6.SessionDriver>().toExtend<SessionDriver>();
expectTypeOf<astro7.SessionDriver>().toExtend<SessionDriver>();
expectTypeOf<SessionDriverConfig>().toExtend<astro6.SessionDriverConfig>();
expectTypeOf<SessionDriverConfig>().toExtend<astro7.SessionDriverConfig>();
expectTypeOf<astro6.SessionDriverConfig>().toExtend<SessionDriverConfig>();
expectTypeOf<astro7.SessionDriverConfig>().toExtend<SessionDriverConfig>();

// A site's own entrypoint that uses one of our runtimes.
expectTypeOf(() => redis({ url: 'redis://localhost' })).toExtend<() => astro7.SessionDriver>();
expectTypeOf(() => memory()).toExtend<() => astro6.SessionDriver>();
expectTypeOf([upstash(), cloudflareKv(), netlifyBlobs(), fs(), redis(), memory()]).toExtend<astro6.SessionDriver[]>();
expectTypeOf([upstash(), cloudflareKv(), netlifyBlobs(), fs(), redis(), memory()]).toExtend<astro7.SessionDriver[]>();
expectTypeOf(fromUnstorage).returns.toExtend<astro6.SessionDriver>();
expectTypeOf(fromUnstorage).returns.toExtend<astro7.SessionDriver>();
