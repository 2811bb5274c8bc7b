import { recordKey } from '@coatcheck/session-core/driver';
import { Redis } from 'ioredis';
import { beforeAll, describe, expect, test } from 'vitest';
import { createVisitor, type Visitor } from './support/http.ts';
import { startRedis, type RedisServer } from './support/redis-server.ts';
import { astros } from './support/scope.ts';
import { buildSite, redisSite, redisSiteFromVariables, startSite, type Built } from './support/site.ts';

// Mistakes in the configuration and in the use of sessions: each causes a clear error or the documented behavior, and loses nothing else.

const PASSWORD = 'c0rrect-h0rse-battery';

describe.each(astros)('a built site on Astro %i', (astro) => {
  let built: Built;
  let redis: RedisServer;
  let client: Redis;

  beforeAll(async () => {
    built = await buildSite(redisSite(astro));
    redis = await startRedis({ args: ['--requirepass', PASSWORD] });
    client = new Redis(right());
    return async () => {
      client.disconnect();
      await redis[Symbol.asyncDispose]();
    };
  });

  const right = () => `redis://:${PASSWORD}@127.0.0.1:${redis.port}`;
  const start = (url: string = right()) => startSite(built, { env: { REDIS_URL: url } });
  const keyOf = (visitor: Visitor) => recordKey(visitor.sessionId()!);

  /** The error of a page that reads the session, with the message of its cause. */
  const failureOf = async (visitor: Visitor): Promise<{ code: string; message: string }> => {
    const { outcomes } = await visitor.attempt([['get', 'a']]);
    const outcome = outcomes?.[0];
    if (!outcome || !('error' in outcome)) throw new Error(`expected an error, got ${JSON.stringify(outcomes)}`);
    const { code, message, cause } = outcome.error;
    return { code: String(code), message: [message, cause?.message].filter(Boolean).join(' | ') };
  };

  test.each([
    [
      'a missing variable',
      () => '',
      /\[session-redis\] REDIS_URL is not set\..*node --env-file=\.env dist\/server\/entry\.mjs/,
    ],
    [
      'a URL that is none',
      () => `localhost ${PASSWORD}`,
      /\[session-redis\] REDIS_URL: expected a URL such as redis:\/\//,
    ],
    [
      'another protocol',
      () => `https://:${PASSWORD}@localhost`,
      /\[session-redis\] REDIS_URL: expected a URL such as redis:\/\//,
    ],
    ['a wrong password', () => `redis://:not-${PASSWORD}@127.0.0.1:${redis.port}`, /\[session-redis\] .*password/i],
    ['no password where one is needed', () => `redis://127.0.0.1:${redis.port}`, /\[session-redis\] .*password/i],
  ])('says at once what is wrong: %s', async (_name, url, message) => {
    // The deadline is beyond the time limit of the test, so waiting even for a part of it fails.
    const env = { SESSION_TTL: '3600', SESSION_TIMEOUT: '600000', ...(url() && { REDIS_URL: url() }) };
    await using site = await startSite(await buildSite(redisSiteFromVariables(astro)), { env });
    const visitor = createVisitor(site.url, [['astro-session', crypto.randomUUID()]]);
    const failure = await failureOf(visitor);
    expect(failure.message).toMatch(message);
    expect(failure.code).toBe('configuration');
    // The visitor keeps the cookie: a mistake in the configuration signs nobody out.
    expect(visitor.sessionId()).toBeDefined();
    expect(failure.message + site.logs()).not.toContain(PASSWORD);
  });

  test('a Redis key of another type is not changed, and causes an error', async () => {
    await using site = await start();
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'a', 1]]);
    for (const put of [
      async () => client.set(await keyOf(visitor), 'precious'),
      async () => client.hset(await keyOf(visitor), 'precious', '1'),
    ]) {
      await client.del(await keyOf(visitor));
      await put();
      const before = await client.dumpBuffer(await keyOf(visitor));
      const { message } = await failureOf(visitor);
      expect(message).toMatch(/\[session-redis\] .*prefix/);
      expect((await visitor.attempt([['set', 'b', 1]])).status).toBe(500);
      expect(await client.dumpBuffer(await keyOf(visitor))).toEqual(before);
      expect(site.logs()).not.toContain(visitor.sessionId());
    }
  });

  test('a value that cannot be stored makes its own `set` fail, and the rest of the request is stored', async () => {
    await using site = await start();
    const visitor = createVisitor(site.url);
    const { outcomes } = await visitor.attempt([
      ['set', 'bad', () => {}],
      ['set', 'good', 1],
    ]);
    expect(outcomes).toMatchObject([{ error: { message: expect.stringContaining('bad') } }, { value: undefined }]);
    expect(await visitor.run([['entries']])).toEqual([[['good', 1]]]);
  });

  test('a session key that is not a string makes the request fail, and the stored session is unchanged', async () => {
    await using site = await start();
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'a', 1]]);
    const seven: unknown = 7;
    expect((await visitor.attempt([['set', seven as string, 1]])).status).toBe(500);
    expect(site.logs()).toContain('Session keys must be non-empty strings; got number.');
    expect(await visitor.run([['entries']])).toEqual([[['a', 1]]]);
  });

  test('a session of 5 MB works', async () => {
    await using site = await start();
    const visitor = createVisitor(site.url);
    const large = 'x'.repeat(5_000_000);
    await visitor.run([['set', 'a', 1]]);
    // The site creates the value, because it is too large for the body of a request.
    await visitor.run([
      ['set', 'parts', []],
      ...Array.from({ length: 50 }, (_, index): ['set', string, string] => [
        'set',
        `part${index}`,
        large.slice(0, 100_000),
      ]),
    ]);
    expect(await client.memory('USAGE', await keyOf(visitor), 'SAMPLES', 0)).toBeGreaterThan(5_000_000);
    await visitor.run([['set', 'after', 1]]);
    expect(
      await visitor.run([
        ['get', 'part49'],
        ['get', 'after'],
        ['get', 'a'],
      ]),
    ).toEqual([large.slice(0, 100_000), 1, 1]);
  });

  test('a corrupt field is left out but not removed; the other fields can be read', async () => {
    await using site = await start();
    const visitor = createVisitor(site.url);
    await visitor.run([
      ['set', 'cart', ['hat']],
      ['set', 'user', 'ada'],
      ['set', 'when', new Date(0)],
    ]);
    for (const damage of [
      '',
      ':',
      'x',
      ':[',
      ':{}',
      ':[["NoSuchType",1],2]',
      ':[["Map",1],2]',
      ':[["URL",1],"%"]',
      '999999999999999:[[1,9]]',
    ]) {
      await client.hset(await keyOf(visitor), 'cart', damage);
      expect(await visitor.run([['get', 'cart'], ['get', 'user'], ['keys']])).toEqual([
        undefined,
        'ada',
        ['user', 'when'],
      ]);
      await visitor.run([
        ['get', 'user'],
        ['set', 'other', 1],
      ]);
      expect(await client.hget(await keyOf(visitor), 'cart')).toBe(damage);
      await visitor.run([['delete', 'other']]);
    }
    await visitor.run([['set', 'cart', ['coat']]]);
    expect(
      await visitor.run([
        ['get', 'cart'],
        ['get', 'when'],
      ]),
    ).toEqual([['coat'], new Date(0)]);
  });
});
