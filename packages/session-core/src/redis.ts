export { recordError, redisStore, type RedisCommand, type RedisConnection } from './stores/redis/store.ts';
