import { Redis } from '@upstash/redis';
import { afterAll, describe, expect, it } from 'vitest';
import { redisUrl } from '@coatcheck/test-support/redis-server';
import { startUpstashBridge } from '@coatcheck/test-support/upstash-bridge';

// Tests of the Upstash bridge itself: with Upstash's client in its usual configuration, and against
// https://upstash.com/docs/redis/features/restapi.

const bridge = await startUpstashBridge(await redisUrl());
afterAll(() => bridge[Symbol.asyncDispose]());

const key = `bridge:${crypto.randomUUID()}`;
const odd = { text: 'é 🧥 \u0000', list: [1, 'OK', null], ok: 'OK' };

describe.each(['base64', false] as const)('the client, with the encoding %s', (responseEncoding) => {
  const redis = new Redis({ url: bridge.url, token: bridge.token, responseEncoding, enableAutoPipelining: false });

  it('commands', async () => {
    expect(await redis.set(key, odd)).toBe('OK');
    expect(await redis.get(key)).toEqual(odd);
    expect(await redis.del(key)).toBe(1);
    expect(await redis.get(key)).toBeNull();
    await redis.hset(key, odd);
    expect(await redis.hgetall(key)).toEqual(odd);
    await redis.del(key);
  });

  it('pipelines, with one reply per command', async () => {
    const results = await redis.pipeline().set(key, 'a').lpush(key, 'b').get(key).exec({ keepErrors: true });
    expect(results).toMatchObject([{ result: 'OK' }, { error: expect.stringContaining('WRONGTYPE') }, { result: 'a' }]);
    expect(bridge.requests.at(-1)).toMatchObject({ path: '/pipeline', commands: ['SET', 'LPUSH', 'GET'] });
  });

  it('transactions', async () => {
    expect(await redis.multi().set(key, 1).incr(key).get(key).exec()).toEqual(['OK', 2, 2]);
    expect(bridge.requests.at(-1)!.path).toBe('/multi-exec');
  });

  it('scripts', async () => {
    expect(await redis.eval('return {KEYS[1], ARGV[1], 3, false}', ['k'], ['v'])).toEqual(['k', 'v', 3, null]);
    await expect(redis.evalsha('0'.repeat(40), ['k'], [])).rejects.toThrow(/^NOSCRIPT/);
  });
});

describe('over HTTP', () => {
  const ask = async (path: string, init: RequestInit = {}, token = bridge.token) => {
    const headers = new Headers(token ? { authorization: `Bearer ${token}` } : {});
    const response = await fetch(bridge.url + path, { ...init, headers });
    return {
      status: response.status,
      body: await response.json(),
      sync: response.headers.get('upstash-sync-token'),
    };
  };

  it('a path is a command, and a posted body is its last argument', async () => {
    expect(await ask(`/set/${key}/a%2Fb`)).toMatchObject({ status: 200, body: { result: 'OK' } });
    expect((await ask(`/get/${key}`)).body).toEqual({ result: 'a/b' });
    await ask(`/set/${key}?EX=100`, { method: 'POST', body: '{"posted":1}' });
    expect((await ask(`/get/${key}?_token=${bridge.token}`, {}, '')).body).toEqual({
      result: '{"posted":1}',
    });
    expect((await ask(`/ttl/${key}`)).body).toEqual({ result: 100 });
  });

  it('a Redis error is a 400, a wrong token a 401', async () => {
    expect(await ask(`/hgetall/${key}`)).toMatchObject({
      status: 400,
      body: { error: expect.stringMatching(/^WRONGTYPE/) },
    });
    expect(await ask('/', { method: 'POST', body: 'no JSON' })).toMatchObject({ status: 400 });
    const unauthorized = { status: 401, body: { error: 'WRONGPASS invalid or missing auth token' } };
    expect(await ask('/ping', {}, 'wrong')).toMatchObject(unauthorized);
    expect(await ask('/ping', { method: 'DELETE' })).toMatchObject({ status: 405 });
  });

  it('a request is limited to 1 MiB', async () => {
    const bodyOf = (length: number) => JSON.stringify(['echo', 'x'.repeat(length - '["echo",""]'.length)]);
    const { status } = await ask('/', { method: 'POST', body: bodyOf(1024 * 1024) });
    expect(status).toBe(200);
    expect(await ask('/', { method: 'POST', body: bodyOf(1024 * 1024 + 1) })).toMatchObject({
      status: 400,
      body: { error: expect.stringMatching(/^ERR max request size exceeded/) },
    });
  });

  it('responses have a token that says how up to date a replica must be', async () => {
    const [one, other] = [await ask('/ping'), await ask('/ping')];
    expect(one.sync).toBeTruthy();
    expect(other.sync).not.toBe(one.sync);
  });
});
