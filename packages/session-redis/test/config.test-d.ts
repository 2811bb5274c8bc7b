import redis from '@coatcheck/session-redis/runtime';
import { Cluster, Redis } from 'ioredis';
import { createClient, createCluster } from 'redis';
import { fromEnv, redisDriver } from '@coatcheck/session-redis';

redisDriver();
redisDriver({ url: process.env.REDIS_URL, ttl: false, timeout: fromEnv('TIMEOUT') });
redisDriver({ host: 'h', port: fromEnv('PORT'), db: 1, tls: { ca: fromEnv('CA'), rejectUnauthorized: false } });
redisDriver({ cluster: ['a:1', { host: 'b' }] });
redisDriver({ cluster: fromEnv('REDIS_NODES') });
redisDriver({ sentinel: { name: 'shop', nodes: ['a:1'], password: fromEnv('PASSWORD') } });

// @ts-expect-error there is no such option
redisDriver({ hots: 'h' });
// @ts-expect-error a Sentinel needs to know of which group
redisDriver({ sentinel: { nodes: ['a:1'] } });
// @ts-expect-error a port is a number
redisDriver({ port: '6379' });

// Clients of the app.
redis({ client: new Redis() });
redis({ client: new Cluster([]) });
redis({ client: createClient() });
redis({ client: createClient({ RESP: 2 }) });
redis({ client: createCluster({ rootNodes: [] }) });
// @ts-expect-error only in the runtime: a client is not JSON
redisDriver({ client: new Redis() });
