export { explainReply, unknownReply } from './stores/redis/errors.ts';
export { redisStore, type RedisCommand, type RedisConnection } from './stores/redis/store.ts';
