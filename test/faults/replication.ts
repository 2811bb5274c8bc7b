import { setTimeout as pause } from 'node:timers/promises';
import redis from '@coatcheck/session-redis/runtime';
import type { Redis } from 'ioredis';
import { freePort } from '../support/ports.ts';
import { startRedis, type RedisServer } from '../support/redis-server.ts';
import { connectAdmin } from './redis.ts';
import { TIMEOUT_MS, type Fault, type Scene } from './scene.ts';
import type { Verdict } from './visits.ts';

/** Makes a master send its data to a new replica immediately, instead of waiting for more replicas. */
const SYNC_AT_ONCE = ['--repl-diskless-sync-delay', '0'];

/** Polls until the condition holds. A condition that rejects does not hold. Fails after 30 seconds. */
async function until(condition: () => Promise<boolean>): Promise<void> {
  const giveUpAt = Date.now() + 30_000;
  while (!(await condition().catch(() => false))) {
    if (Date.now() > giveUpAt) throw new Error(`not within 30 s: ${condition.toString()}`);
    await pause(50);
  }
}

const isReplicating = async (admin: Redis): Promise<boolean> =>
  (await admin.info('replication')).includes('master_link_status:up');

function describeLosses({ acknowledged, lost }: Verdict): string {
  return `${lost.length} of ${acknowledged.toLocaleString('en')} acknowledged writes`;
}

/** A master with a replica, and three Sentinels that monitor them. */
const sentinelFailover: Fault = {
  name: 'Redis Sentinel: master killed; three Sentinels (`down-after-milliseconds` 500) promote its replica ²',
  endsByItself: true,
  mayLose: true,
  async open() {
    const master = await startRedis({ args: SYNC_AT_ONCE });
    const replica = await startRedis({ args: [...SYNC_AT_ONCE, '--replicaof', '127.0.0.1', String(master.port)] });
    const sentinels = await Promise.all(Array.from({ length: 3 }, () => startRedis({ args: ['--sentinel'] })));
    const admins = sentinels.map(({ port }) => connectAdmin(port));
    for (const admin of admins) {
      await admin.call('SENTINEL', 'MONITOR', 'shop', '127.0.0.1', master.port, 2);
      await admin.call('SENTINEL', 'SET', 'shop', 'down-after-milliseconds', 500, 'failover-timeout', 3000);
    }
    for (const admin of admins) {
      await until(async () => {
        const others = (await admin.call('SENTINEL', 'SENTINELS', 'shop')) as unknown[];
        const replicas = (await admin.call('SENTINEL', 'REPLICAS', 'shop')) as string[][];
        return others.length === 2 && replicas.some((fields) => fields.includes('slave') && fields.includes('ok'));
      });
    }
    const cost = await costOfWait(master);
    const nodes = sentinels.map(({ port }) => `127.0.0.1:${port}`);
    return {
      driver: redis({ sentinel: { name: 'shop', nodes }, timeout: TIMEOUT_MS }),
      inject: () => master.kill(),
      note: async (verdict) =>
        `² Redis replication is asynchronous, so a failover can lose writes that were just acknowledged. This one lost ${describeLosses(verdict)}. ` +
        `Coatcheck does not wait for a replica after each write, as the Redis command \`WAIT 1 100\` would. With it, a write would take ${cost}.`,
      async close() {
        for (const admin of admins) admin.disconnect();
        for (const server of [...sentinels, master, replica]) await server[Symbol.asyncDispose]();
      },
    };
  },
};

/**
 * Measures what `WAIT` adds to a write, with ioredis alone. The writes are sent one after the other, each in one round trip. Resolves to
 * the medians, in words.
 */
async function costOfWait(master: RedisServer): Promise<string> {
  const client = connectAdmin(master.port);
  const median = async (write: (key: string) => Promise<unknown>): Promise<string> => {
    const times: number[] = [];
    for (let round = 0; round < 400; round++) {
      const startedAt = performance.now();
      await write(`cost:${round}`);
      times.push(performance.now() - startedAt);
    }
    return `${times.sort((one, other) => one - other)[200]!.toFixed(2)} ms`;
  };
  await client.set('warm', 'up');
  const plain = await median((key) => client.set(key, 'value'));
  const waited = await median((key) => client.pipeline().set(key, 'value').wait(1, 100).exec());
  client.disconnect();
  return `${waited} instead of ${plain}, on this machine, with the replica on the same machine`;
}

interface Cluster {
  masters: RedisServer[];
  close(): Promise<void>;
}

/** Starts a cluster of three masters, each with a replica. Resolves when all replicas are in sync. */
async function startCluster(): Promise<Cluster> {
  const start = async (): Promise<RedisServer> => {
    const args = [
      '--cluster-enabled',
      'yes',
      '--cluster-node-timeout',
      '1000',
      '--cluster-replica-validity-factor',
      '0',
    ];
    return startRedis({ args: [...args, ...SYNC_AT_ONCE, '--cluster-port', String(await freePort())] });
  };
  const nodes: RedisServer[] = [];
  for (let count = 0; count < 6; count++) nodes.push(await start());
  const admins = nodes.map(({ port }) => connectAdmin(port));
  const [, bus] = (await admins[0]!.config('GET', 'cluster-port')) as [string, string];
  for (const admin of admins.slice(1)) await admin.call('CLUSTER', 'MEET', '127.0.0.1', nodes[0]!.port, bus);
  const slots = [0, 5461, 10_923, 16_384];
  for (const [index, admin] of admins.slice(0, 3).entries()) {
    await admin.call('CLUSTER', 'ADDSLOTSRANGE', slots[index]!, slots[index + 1]! - 1);
  }
  for (const admin of admins) await until(async () => (await admin.cluster('INFO')).includes('cluster_known_nodes:6'));
  for (const [index, admin] of admins.slice(3).entries()) {
    const master = await admins[index]!.cluster('MYID');
    await until(async () => (await admin.cluster('REPLICATE', master)) === 'OK');
  }
  for (const admin of admins) await until(async () => (await admin.cluster('INFO')).includes('cluster_state:ok'));
  for (const admin of admins.slice(3)) await until(() => isReplicating(admin));
  for (const admin of admins) admin.disconnect();
  return {
    masters: nodes.slice(0, 3),
    async close() {
      for (const node of nodes) await node[Symbol.asyncDispose]();
    },
  };
}

function clusterFault(
  name: string,
  options: Pick<Fault, 'mayLose'> & Pick<Scene, 'note'>,
  inject: (masters: RedisServer[], keys: string[]) => Promise<unknown>,
): Fault {
  const { note, ...rest } = options;
  return {
    name: `Redis Cluster: ${name}`,
    endsByItself: true,
    ...rest,
    async open() {
      const { masters, close } = await startCluster();
      const nodes = masters.map(({ port }) => `127.0.0.1:${port}`);
      const driver = redis({ cluster: nodes, timeout: TIMEOUT_MS });
      return { driver, inject: (keys) => inject(masters, keys), close, ...(note && { note }) };
    },
  };
}

/** Resolves to the index of the master that stores the key; to -1 if none does. */
async function masterOf(key: string, admins: Redis[]): Promise<number> {
  const slot = await admins[0]!.cluster('KEYSLOT', key);
  const counts = await Promise.all(admins.map((admin) => admin.cluster('COUNTKEYSINSLOT', slot)));
  return counts.findIndex((count) => count > 0);
}

/** Moves the slot of a key to another node, as `redis-cli --cluster reshard` does. Visitors send requests in the pauses between steps. */
async function moveSlotOf(key: string, masters: RedisServer[]): Promise<void> {
  const admins = masters.map(({ port }) => connectAdmin(port));
  const ids = await Promise.all(admins.map((admin) => admin.cluster('MYID')));
  const slot = await admins[0]!.cluster('KEYSLOT', key);
  const from = await masterOf(key, admins);
  const to = (from + 1) % admins.length;
  await admins[to]!.cluster('SETSLOT', slot, 'IMPORTING', ids[from]!);
  await admins[from]!.cluster('SETSLOT', slot, 'MIGRATING', ids[to]!);
  await pause(150);
  const keys = await admins[from]!.cluster('GETKEYSINSLOT', slot, 100);
  await admins[from]!.call('MIGRATE', '127.0.0.1', masters[to]!.port, '', 0, 5000, 'KEYS', ...keys);
  await pause(150);
  for (const index of [to, from]) await admins[index]!.cluster('SETSLOT', slot, 'NODE', ids[to]!);
  for (const admin of admins) admin.disconnect();
}

export const replicationFaults: Fault[] = [
  sentinelFailover,
  clusterFault(
    'master killed; its replica takes over (`cluster-node-timeout` 1000) ³',
    {
      mayLose: true,
      note: async (verdict) =>
        `³ Replication in a cluster is asynchronous as well: this failover lost ${describeLosses(verdict)}.`,
    },
    async (masters, [key]) => {
      const admins = masters.map(({ port }) => connectAdmin(port));
      await masters[await masterOf(key!, admins)]!.kill();
      for (const admin of admins) admin.disconnect();
    },
  ),
  clusterFault('slots move to another node', {}, async (masters, keys) => {
    for (const key of keys) await moveSlotOf(key, masters);
  }),
];
