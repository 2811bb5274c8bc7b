import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { beforeAll, describe, expect, test } from 'vitest';
import { createVisitor } from './support/http.ts';
import { startRedis, type RedisServer } from './support/redis-server.ts';
import { astros } from './support/scope.ts';
import { BUILD_PASSWORD as PASSWORD, buildSite, devSite, redisSite, startSite, type SiteSpec } from './support/site.ts';

// Redis must contain no session ids, and a build no credentials.

// The search is for the password only, because the port of the server varies.
const atBuild = `redis://:${PASSWORD}@127.0.0.1:1`;

let redis: RedisServer;
let url: string;

beforeAll(async () => {
  redis = await startRedis({ args: ['--requirepass', PASSWORD] });
  url = `redis://:${PASSWORD}@127.0.0.1:${redis.port}`;
  return () => redis[Symbol.asyncDispose]();
});

/** The files in a folder and its subfolders that contain a string. */
async function filesWith(folder: string, text: string): Promise<string[]> {
  const found: string[] = [];
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile() && (await readFile(path)).includes(text)) found.push(path);
  }
  return found;
}

test('Redis contains neither the session id nor a part of it', async () => {
  const built = await buildSite(redisSite(7));
  await using site = await startSite(built, { env: { REDIS_URL: url } });
  const visitor = createVisitor(site.url);
  await visitor.run([['set', 'user', 'ada']]);
  const removed = visitor.fork();
  await visitor.run([['regenerate'], ['set', 'more', 1]]);

  const client = new Redis(url);
  const everything: string[] = [];
  for (const key of await client.keys('*'))
    everything.push(key, ...((await client.callBuffer('HGETALL', key)) as Buffer[]).map(String));
  client.disconnect();
  const text = everything.join('\n').toLowerCase();
  expect(text).toContain('ada');
  for (const id of [visitor.sessionId()!, removed.sessionId()!]) {
    for (let index = 0; index + 6 <= id.length; index++) expect(text).not.toContain(id.slice(index, index + 6));
  }
});

describe.each(astros)('a site on Astro %i', (astro) => {
  test.each<[string, SiteSpec]>([
    ['REDIS_URL in the environment of the build', redisSite(astro)],
    ['fromEnv', { astro, driver: `redisDriver({ url: fromEnv('REDIS_URL') })`, env: { REDIS_URL: atBuild } }],
    ['a .env file', { astro, driver: 'redisDriver()', files: { '.env': `REDIS_URL=${atBuild}\n` } }],
  ])('has no credentials in its build, and works with environment variables: %s', async (_name, spec) => {
    const built = await buildSite(spec);
    expect(await filesWith(built.dist, PASSWORD)).toEqual([]);
    expect(await filesWith(built.dist, 'REDIS_URL')).not.toEqual([]);
    await using site = await startSite(built, {
      env: { REDIS_URL: url },
    });
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'user', 'ada']]);
    expect(await visitor.run([['get', 'user']])).toEqual(['ada']);
    expect(site.logs()).not.toContain(PASSWORD);
  });

  test('reads `.env` in development', async () => {
    await using site = await devSite({ astro, driver: 'redisDriver()', files: { '.env': `REDIS_URL=${url}\n` } });
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'user', 'ada']]);
    expect(await visitor.run([['get', 'user']])).toEqual(['ada']);
    expect(site.logs()).not.toContain(PASSWORD);
    const cached = (await filesWith(site.dir, PASSWORD)).filter((path) => !path.endsWith('/.env'));
    expect(cached).toEqual([]);
  });

  test('logs a warning if a password is written into the config, in any form', async () => {
    const driver = `redisDriver({ url: process.env.REDIS_URL })`;
    const built = await buildSite({ astro, driver, env: { REDIS_URL: atBuild } });
    expect(built.log).toContain('[session-redis] A secret is written into the options');
    expect(built.log).not.toContain(PASSWORD);
    // This shows that the search above can find a password.
    expect(await filesWith(built.dist, PASSWORD)).not.toEqual([]);
  });
});
