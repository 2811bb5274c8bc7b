import redisDriver from 'unstorage/drivers/redis';

// `sessionDrivers.redis({ url })` is this same driver with the address written into the build. Here the site reads it
// when it runs, so that one build serves every test, whatever port its Redis has.
export default () => redisDriver({ url: process.env.REDIS_URL! });
