import { connect } from 'node:net';
import { testStore } from '@coatcheck/session-core/testing';
import { redisStore } from '@coatcheck/session-core/redis';
import { Cluster, type Redis } from 'ioredis';
import { createCluster } from 'redis';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { freePort } from '@coatcheck/test-support/ports';
import { startRedis, type RedisServer } from '@coatcheck/test-support/redis-server';
import { call, change, newKey } from '@coatcheck/test-support/stores';
import { useClient } from '../src/app-client.ts';
import { README_ACL } from './support/readme.ts';
import { runScript } from './support/script.ts';
import { eventually, openInspector, openStore, timeLeftIn } from './support/store.ts';

const PASSWORD = 'right';

/** The first slot of the last node. */
const LAST_SLOTS = 10_923;

let nodes: RedisServer[] = [];

beforeAll(async () => {
  nodes = await Promise.all(Array.from({ length: 3 }, startNode));
  const clients = nodes.map((node) => openInspector(`redis://:${PASSWORD}@127.0.0.1:${node.port}`));
  const slots = [0, 5461, LAST_SLOTS, 16_384];
  for (const [index, client] of clients.entries()) {
    await client.call('CLUSTER', 'ADDSLOTSRANGE', slots[index]!, slots[index + 1]! - 1);
    if (index > 0) await client.call('CLUSTER', 'MEET', '127.0.0.1', nodes[0]!.port, await busPort(clients[0]!));
  }
  for (const client of clients) {
    await eventually(async () => (await client.cluster('INFO')).includes('cluster_state:ok'), 20_000);
    client.disconnect();
  }
}, 40_000);

afterAll(() => Promise.all(nodes.map((node) => node[Symbol.asyncDispose]())));

async function startNode(): Promise<RedisServer> {
  // The nodes' own port would be 10,000 above, where there may be none.
  const bus = await freePort();
  return startRedis({
    args: `--appendfsync always --cluster-enabled yes --cluster-port ${bus} --cluster-node-timeout 2000 --cluster-require-full-coverage no --tcp-backlog 1
      --requirepass ${PASSWORD} --masterauth ${PASSWORD}`.split(/\s+/),
  });
}

async function busPort(client: ReturnType<typeof openInspector>): Promise<number> {
  const [, port] = (await client.config('GET', 'cluster-port')) as [string, string];
  return Number(port);
}

async function slotsOf(keys: string[]): Promise<number[]> {
  const inspector = openInspector(`redis://:${PASSWORD}@127.0.0.1:${nodes[0]!.port}`);
  const slots = await Promise.all(keys.map((key) => inspector.cluster('KEYSLOT', key)));
  inspector.disconnect();
  return slots;
}

const open = (options: object = {}, timeoutMs = 15_000) =>
  openStore({ cluster: [{ host: '127.0.0.1', port: nodes[0]!.port }], password: PASSWORD, ...options }, timeoutMs);

describe('the store on a cluster', () => {
  let inspectors: Redis[];
  beforeAll(() => {
    inspectors = nodes.map(({ port }) => openInspector(`redis://:${PASSWORD}@127.0.0.1:${port}`));
  });
  afterAll(() => {
    for (const inspector of inspectors) inspector.disconnect();
  });
  /** The one node answers that has the key. */
  const timeLeft = (key: string) => Promise.any(inspectors.map((inspector) => timeLeftIn(inspector)(key)));
  testStore({ it, createStore: () => open(), timeLeft, slackMs: 200 });
});

describe('clients of the app', () => {
  const [host, password] = ['127.0.0.1', PASSWORD];
  const kinds = {
    async ioredis() {
      const client = new Cluster([{ host, port: nodes[0]!.port }], { redisOptions: { password } });
      return { client, end: () => client.disconnect() };
    },
    async 'node-redis'() {
      const client = createCluster({
        rootNodes: [{ url: `redis://${host}:${nodes[0]!.port}` }],
        defaults: { password },
      });
      await client.connect();
      return { client, end: () => client.destroy() };
    },
  };

  it.each(Object.entries(kinds))('a cluster client of %s reaches the keys of all nodes', async (_name, connected) => {
    const { client, end } = await connected();
    const store = redisStore('session-redis', useClient(client, 15_000));
    const keys = Array.from({ length: 50 }, newKey);
    const contents = (key: string) =>
      new Map([
        ['key', `:"${key}"`],
        ['__proto__', ':1'],
      ]);
    await Promise.all(keys.map((key) => store.patch(key, change({ set: contents(key) }), call())));
    for (const key of keys) expect(await store.read(key, call())).toEqual(contents(key));
    for (const key of keys) expect(await store.destroy(key, 1000, call())).toEqual(contents(key));
    end();
  });
});

it('keys of all nodes are reached from one', async () => {
  const store = open();
  const keys = Array.from({ length: 50 }, newKey);
  await Promise.all(keys.map((key) => store.patch(key, change({ set: new Map([['key', `:"${key}"`]]) }), call())));
  for (const key of keys) expect(await store.read(key, call())).toEqual(new Map([['key', `:"${key}"`]]));
  for (const node of nodes) {
    const inspector = openInspector(`redis://:${PASSWORD}@127.0.0.1:${node.port}`);
    expect(await inspector.dbsize()).toBeGreaterThan(0);
    inspector.disconnect();
  }
  await store.close?.();
});

it('a user needs what the README says', async () => {
  const rules = [...README_ACL.split(' ').slice(4), '+cluster|slots'].filter((rule) => rule !== '~session:*');
  for (const node of nodes) {
    const inspector = openInspector(`redis://:${PASSWORD}@127.0.0.1:${node.port}`);
    await inspector.acl('SETUSER', 'sessions', 'on', '>confined', '~test:*', ...rules);
    inspector.disconnect();
  }
  const store = open({ username: 'sessions', password: 'confined' });
  const key = newKey();
  expect(await store.patch(key, change({ set: new Map([['a', ':1']]) }), call())).toBe('applied');
  expect(await store.destroy(key, 1000, call())).toEqual(new Map([['a', ':1']]));
  await store.close?.();
});

it('a wrong password is told at once', async () => {
  const store = open({ password: 'precious' });
  const error: unknown = await store.read(newKey(), call()).catch((reason: unknown) => reason);
  expect(error).toMatchObject({ code: 'configuration', message: expect.stringMatching(/password/) });
  expect(String(error)).not.toContain('precious');
});

it('a cluster that is named as a single server is told at once', async () => {
  const store = openStore({ host: '127.0.0.1', port: nodes[0]!.port, password: PASSWORD });
  const reading = Promise.all(Array.from({ length: 20 }, () => store.read(newKey(), call())));
  await expect(reading).rejects.toMatchObject({
    code: 'configuration',
    message: expect.stringMatching(/part of a cluster/),
  });
  await store.close?.();
});

it('a node that goes and comes back takes nothing with it, and its keys work again', async () => {
  const store = open();
  const keys = Array.from({ length: 30 }, newKey);
  const set = new Map([['a', ':1']]);
  await Promise.all(keys.map((key) => store.patch(key, change({ set }), call())));
  await nodes[2]!.kill();
  const reading = Promise.all(keys.map((key) => store.read(key, call(15_000))));
  await nodes[2]!.restart();
  expect(await reading).toEqual(keys.map(() => set));
  await store.close?.();
}, 30_000);

it('a write that waits for a node when its caller gives up is not sent later', async () => {
  const store = open();
  const keys = Array.from({ length: 30 }, newKey);
  await Promise.all(keys.map((key) => store.patch(key, change({ set: new Map([['a', ':1']]) }), call())));
  const slots = await slotsOf(keys);
  await nodes[2]!.kill();
  const patches = await Promise.allSettled(
    keys.map((key) => store.patch(key, change({ set: new Map([['a', ':2']]) }), call(500))),
  );
  await nodes[2]!.restart();
  const told = patches.map((patch) => (patch.status === 'rejected' ? String(patch.reason) : patch.value));
  expect(told).toContain('applied');
  expect(told).toContainEqual(expect.stringMatching(/Error/));
  // A busy machine puts its cluster together again in its own time, and until then it answers that it is down.
  const isServed = (key: string) =>
    store.read(key, call()).then(
      () => true,
      () => false,
    );
  for (const key of keys) await eventually(() => isServed(key), 15_000);
  const held = await Promise.all(keys.map(async (key) => (await store.read(key, call()))?.get('a')));
  for (const [index, value] of held.entries()) {
    // A slow machine may answer too late for what it has stored, but not from the node that was gone.
    if (slots[index]! >= LAST_SLOTS) expect([told[index], value]).toEqual([expect.stringMatching(/Error/), ':1']);
    else expect(told[index] === 'applied' ? [':2'] : [':1', ':2']).toContain(value);
  }
  await store.close?.();
}, 30_000);

it('a write that the client keeps for a node is not sent when its caller has given up meanwhile', async () => {
  const last = nodes[2]!;
  const store = open();
  // The store has a connection to the node of one, and none to that of the other before it is asked for it.
  const keys = Array.from({ length: 200 }, newKey);
  const slots = await slotsOf(keys);
  const near = keys.find((_, index) => slots[index]! < 5461)!;
  const [far, warm] = keys.filter((_, index) => slots[index]! >= LAST_SLOTS) as [string, string];
  await store.read(near, call());
  const other = open();
  await other.patch(warm, change({ set: new Map([['a', ':1']]) }), call());
  await other.close?.();

  // Its queue of new connections is full, so that the next one is neither made nor refused.
  last.freeze();
  const fillers = Array.from({ length: 10 }, () => connect(last.port, '127.0.0.1').on('error', () => undefined));
  await eventually(() => fillers.filter((filler) => !filler.connecting).length > 1);
  const patch = store.patch(far, change({ set: new Map([['a', ':1']]) }), call(300));
  expect(await patch.catch((error: unknown) => error)).toMatchObject({ code: 'unavailable' });
  for (const filler of fillers) filler.destroy();
  last.thaw();
  expect(await store.read(far, call(10_000))).toBeNull();
  await store.close?.();
}, 30_000);

it('a script ends by itself', async () => {
  const config = { cluster: nodes.map((node) => `127.0.0.1:${node.port}`), password: PASSWORD, timeout: 5000 };
  const ended = await runScript(`await attempt(${JSON.stringify(config)});`, '');
  expect(ended).toEqual({ code: 0, stdout: ['stored'], stderr: '' });
});

it('a node that never answers does not stop the others, and is asked again', async () => {
  const store = open({}, 400);
  const keys = Array.from({ length: 30 }, newKey);
  const set = new Map([['a', ':1']]);
  await Promise.all(keys.map((key) => store.patch(key, change({ set }), call())));
  nodes[2]!.freeze();
  const answered = new Set<string>();
  const reading = keys.map((key) => store.read(key, call(15_000)).then((fields) => answered.add(key) && fields));
  await eventually(() => answered.size > 0);
  expect(answered.size).toBeLessThan(keys.length);
  nodes[2]!.thaw();
  expect(await Promise.all(reading)).toEqual(keys.map(() => set));
  await store.close?.();
}, 30_000);
