import { setTimeout as pause } from 'node:timers/promises';
import redis from '@coatcheck/session-redis/runtime';
import type { Redis } from 'ioredis';
import { freePort } from '../support/ports.ts';
import { startRedis, type RedisServer } from '../support/redis-server.ts';
import { adminOf } from './redis.ts';
import { TIMEOUT_MS, type Fault, type Scene } from './scene.ts';
import type { Verdict } from './visits.ts';

const AT_ONCE = ['--repl-diskless-sync-delay', '0'];

async function until(condition: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!(await condition().catch(() => false))) {
    if (Date.now() > deadline) throw new Error(`not within 30 s: ${condition.toString()}`);
    await pause(50);
  }
}

const isReplicating = async (admin: Redis): Promise<boolean> =>
  (await admin.info('replication')).includes('master_link_status:up');

function losses({ acknowledged, lost }: Verdict): string {
  return `${lost.length} of ${acknowledged.toLocaleString('en')} acknowledged writes`;
}

/** A master with a replica, and three Sentinels that watch over them. */
const sentinelFailover: Fault = {
  name: 'Redis Sentinel: master killed; three Sentinels (`down-after-milliseconds` 500) promote its replica ²',
  passes: true,
  mayLose: true,
  async open() {
    const master = await startRedis({ args: AT_ONCE });
    const replica = await startRedis({ args: [...AT_ONCE, '--replicaof', '127.0.0.1', String(master.port)] });
    const sentinels = await Promise.all(Array.from({ length: 3 }, () => startRedis({ args: ['--sentinel'] })));
    const admins = sentinels.map(({ port }) => adminOf(port));
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
      strike: () => master.kill(),
      note: async (verdict) =>
        `² Redis replication is asynchronous, so a failover can lose writes that were just acknowledged. This one lost ${losses(verdict)}. ` +
        `The Redis command \`WAIT 1 100\` after each write would wait for a replica. Coatcheck does not send it. With it, a write would take ${cost}.`,
      async close() {
        for (const admin of admins) admin.disconnect();
        for (const server of [...sentinels, master, replica]) await server[Symbol.asyncDispose]();
      },
    };
  },
};

/** One after the other, in one round trip each, by a client without anything around it. */
async function costOfWait(master: RedisServer): Promise<string> {
  const client = adminOf(master.port);
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

/** Three masters with a replica each. */
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
    return startRedis({ args: [...args, ...AT_ONCE, '--cluster-port', String(await freePort())] });
  };
  const nodes: RedisServer[] = [];
  for (let count = 0; count < 6; count++) nodes.push(await start());
  const admins = nodes.map(({ port }) => adminOf(port));
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

function onCluster(
  name: string,
  traits: Pick<Fault, 'mayLose'> & Pick<Scene, 'note'>,
  strike: (masters: RedisServer[], keys: string[]) => Promise<unknown>,
): Fault {
  const { note, ...rest } = traits;
  return {
    name: `Redis Cluster: ${name}`,
    passes: true,
    ...rest,
    async open() {
      const { masters, close } = await startCluster();
      const nodes = masters.map(({ port }) => `127.0.0.1:${port}`);
      const driver = redis({ cluster: nodes, timeout: TIMEOUT_MS });
      return { driver, strike: (keys) => strike(masters, keys), close, ...(note && { note }) };
    },
  };
}

async function holderOf(key: string, admins: Redis[]): Promise<number> {
  const slot = await admins[0]!.cluster('KEYSLOT', key);
  const counts = await Promise.all(admins.map((admin) => admin.cluster('COUNTKEYSINSLOT', slot)));
  return counts.findIndex((count) => count > 0);
}

/** As `redis-cli --cluster reshard` does it, with a rest between the steps, in which visitors come. */
async function moveSlotOf(key: string, masters: RedisServer[]): Promise<void> {
  const admins = masters.map(({ port }) => adminOf(port));
  const ids = await Promise.all(admins.map((admin) => admin.cluster('MYID')));
  const slot = await admins[0]!.cluster('KEYSLOT', key);
  const from = await holderOf(key, admins);
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
  onCluster(
    'master killed; its replica takes over (`cluster-node-timeout` 1000) ³',
    {
      mayLose: true,
      note: async (verdict) =>
        `³ Replication in a cluster is asynchronous as well: this failover lost ${losses(verdict)}.`,
    },
    async (masters, [key]) => {
      const admins = masters.map(({ port }) => adminOf(port));
      await masters[await holderOf(key!, admins)]!.kill();
      for (const admin of admins) admin.disconnect();
    },
  ),
  onCluster('slots move to another node', {}, async (masters, keys) => {
    for (const key of keys) await moveSlotOf(key, masters);
  }),
];
