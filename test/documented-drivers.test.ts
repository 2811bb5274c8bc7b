import { beforeAll, describe, expect, test } from 'vitest';
import { createVisitor } from './support/http.ts';
import { startRedis, type RedisServer } from './support/redis-server.ts';
import { astros, scopeOf } from './support/scope.ts';
import { buildSite, startSite } from './support/site.ts';

// The examples of Astro's documentation of session drivers, in built sites that also have our packages.

let redis: RedisServer;

beforeAll(async () => {
  redis = await startRedis();
  return () => redis[Symbol.asyncDispose]();
});

const OURS = "our Redis runtime in the site's own entrypoint, which reads `astro:env`";
const drivers: [string, string][] = [
  ['a driver written by hand', 'documentedDriver({ max: 500 })'],
  ['a driver of unstorage as the entrypoint', 'unstorageDriver({ max: 500 })'],
  ["a driver of unstorage in the site's own runtime", 'wrappedUnstorageDriver()'],
  [OURS, 'ownDriver()'],
];

describe.each(astros)('on Astro %i', (astro) => {
  test.each(scopeOf(drivers, [OURS]))('works: %s', async (_name, driver) => {
    const built = await buildSite({ astro, driver });
    await using site = await startSite(built, { env: { REDIS_URL: redis.url } });
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'cart', new Map([['hat', 2]])]]);
    expect(await visitor.run([['get', 'cart']])).toEqual([new Map([['hat', 2]])]);
    const before = visitor.fork();
    await visitor.run([['regenerate']]);
    expect(await visitor.run([['get', 'cart']])).toEqual([new Map([['hat', 2]])]);
    await visitor.run([['destroy']]);
    expect(await before.run([['get', 'cart']])).toEqual([undefined]);
  });
});
