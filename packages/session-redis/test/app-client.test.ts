import { createSessions, isSessionDriverError } from '@coatcheck/session-core';
import { redisStore } from '@coatcheck/session-core/redis';
import { testStore } from '@coatcheck/session-core/testing';
import redis, { type RedisClient } from '@coatcheck/session-redis/runtime';
import { collectGarbage } from '@coatcheck/test-support/garbage';
import { outageOf, startProxy } from '@coatcheck/test-support/fault-proxy';
import { redisUrl } from '@coatcheck/test-support/redis-server';
import { call, change, newKey } from '@coatcheck/test-support/stores';
import { Redis } from 'ioredis';
import { createClient } from 'redis';
import { afterAll, describe, expect, it, onTestFinished } from 'vitest';
import { isConnected, useClient } from '../src/app-client.ts';
import { openInspector, timeLeftIn } from './support/store.ts';

// A client that the app has created.

const url = await redisUrl();
const { port: target } = new URL(url);
const inspector = openInspector(url);
afterAll(() => inspector.disconnect());

const nodeRedis = (to: string, options: object = {}) =>
  createClient({ url: to, ...options }).on('error', () => undefined);

const kinds: Record<string, (to: string) => Promise<{ client: RedisClient; end(): void }>> = {
  async ioredis(to) {
    const client = new Redis(to, { retryStrategy: () => 10 }).on('error', () => undefined);
    return { client, end: () => client.disconnect() };
  },
  async 'node-redis'(to) {
    const client = nodeRedis(to, { socket: { reconnectStrategy: () => 10 } });
    await client.connect();
    return { client, end: () => client.destroy() };
  },
  async 'node-redis with RESP2'(to) {
    const client = nodeRedis(to, { RESP: 2, socket: { reconnectStrategy: () => 10 } });
    await client.connect();
    return { client, end: () => client.destroy() };
  },
};

describe.each(Object.entries(kinds))('the store with a client of %s', async (name, connect) => {
  const proxy = await startProxy({ target: Number(target) });
  const { client, end } = await connect(`redis://127.0.0.1:${proxy.port}`);
  afterAll(async () => {
    end();
    await proxy[Symbol.asyncDispose]();
  });
  const createStore = () => redisStore('session-redis', useClient(client, 60_000));

  testStore({ it, createStore, timeLeft: timeLeftIn(inspector), slackMs: 200, outage: outageOf(proxy) });

  it('sends nothing while the client is not connected, and nothing later', async () => {
    const [store, key] = [createStore(), newKey()];
    const set = new Map([['a', ':1']]);
    await store.patch(key, change({ set }), call());
    await proxy.refuse();
    await expect.poll(() => isConnected(client)).toBe(false);
    const signal = AbortSignal.timeout(300);
    const late = store.patch(key, change({ set: new Map([['a', ':2']]) }), { signal });
    await expect(late).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/Nothing was sent/),
    });
    await proxy.pass();
    expect(await store.read(key, call())).toEqual(set);
  });

  it('closing the driver does not close the client', async () => {
    const store = createStore();
    await store.close?.();
    expect(await store.read(newKey(), call())).toBeNull();
  });
});

it('keeps its sessions under the same keys as a driver with a URL', async () => {
  const client = new Redis(url);
  onTestFinished(() => client.disconnect());
  const session = createSessions({ driver: redis({ client }) }).open('');
  session.set('cart', ['hat']);
  const cookie = (await session.commit())!.split(';')[0]!;
  expect(
    await createSessions({ driver: redis({ url }) })
      .open(cookie)
      .get('cart'),
  ).toEqual(['hat']);
});

it('a client that the app has let go of is garbage-collected', async () => {
  const clients: WeakRef<object>[] = [];
  for (let request = 0; request < 50; request++) {
    const client = { status: 'ready', call: async () => [] };
    clients.push(new WeakRef(client));
    await redis({ client }).getItem(crypto.randomUUID());
  }
  await collectGarbage();
  expect(clients.filter((client) => client.deref()).length).toBeLessThan(5);
});

it('says what is wrong', async () => {
  const failure = async (config: object): Promise<string> => {
    const error: unknown = await redis(config)
      .getItem(crypto.randomUUID())
      .catch((reason: unknown) => reason);
    expect(isSessionDriverError(error) && error.code).toBe('configuration');
    return (error as Error).message;
  };
  expect(await failure({ client: {} })).toContain('`client`: expected a client of ioredis or node-redis');
  const both = { client: { status: 'ready', call: async () => [] }, url };
  expect(await failure(both)).toContain('`client` and `url` each say where Redis is');
});
