import { memoryDriver } from '@coatcheck/session-memory';
import memory from '@coatcheck/session-memory/runtime';
import { redisDriver } from '@coatcheck/session-redis';
import redis from '@coatcheck/session-redis/runtime';
import type { SessionDriver, SessionDriverConfig } from '@coatcheck/session-core';
import type * as astro6 from 'astro-6';
import { defineConfig as defineConfig6 } from 'astro-6/config';
import type * as astro7 from 'astro-7';
import { defineConfig as defineConfig7 } from 'astro-7/config';
import { expectTypeOf } from 'vitest';

// The one line that a site adds compiles, with everything that stands beside it in `session`.
defineConfig6({ session: { driver: redisDriver() } });
defineConfig7({ session: { driver: redisDriver() } });
defineConfig6({ session: { driver: memoryDriver({ maxSessions: 10 }), ttl: 60, cookie: { name: 'shop' } } });
defineConfig7({ session: { driver: memoryDriver({ maxSessions: 10 }), ttl: 60, cookie: { name: 'shop' } } });
defineConfig7({ session: { driver: redisDriver({ url: process.env['REDIS_URL'] }) } });

// Our types are Astro's, in both directions.
expectTypeOf<SessionDriver>().toExtend<astro6.SessionDriver>();
expectTypeOf<SessionDriver>().toExtend<astro7.SessionDriver>();
expectTypeOf<astro6.SessionDriver>().toExtend<SessionDriver>();
expectTypeOf<astro7.SessionDriver>().toExtend<SessionDriver>();
expectTypeOf<SessionDriverConfig>().toExtend<astro6.SessionDriverConfig>();
expectTypeOf<SessionDriverConfig>().toExtend<astro7.SessionDriverConfig>();
expectTypeOf<astro6.SessionDriverConfig>().toExtend<SessionDriverConfig>();
expectTypeOf<astro7.SessionDriverConfig>().toExtend<SessionDriverConfig>();

// A site's own entrypoint around one of our runtimes.
expectTypeOf(() => redis({ url: 'redis://localhost' })).toExtend<() => astro7.SessionDriver>();
expectTypeOf(() => memory()).toExtend<() => astro6.SessionDriver>();
