export type { ErrorRule, Failure } from './stores/error-rules.ts';
export { explainReply, unknownReply } from './stores/redis/errors.ts';
export { redisStore, type RedisCommand, type RedisConnection } from './stores/redis/store.ts';
