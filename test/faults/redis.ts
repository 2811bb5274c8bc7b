import dns from 'node:dns';
import { once } from 'node:events';
import { connect, type AddressInfo } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { createServer, type TLSSocket } from 'node:tls';
import redis from '@coatcheck/session-redis/runtime';
import { Redis } from 'ioredis';
import { startProxy, type FaultProxy } from '../support/fault-proxy.ts';
import { startRedis, type RedisServer } from '../support/redis-server.ts';
import { EXPIRED, KEY, VALID } from './certificates.ts';
import { networkFaults } from './common.ts';
import { TIMEOUT_MS, type Fault, type Scene } from './scene.ts';

type Actions = Pick<Scene, 'inject' | 'repair'>;

/** A fault of Redis itself. Redis writes to disk before it acknowledges a write, so it loses none. */
function serverFault(
  name: string,
  actionsOn: (server: RedisServer, admin: Redis) => Actions,
  options: Omit<Fault, 'name' | 'open'> & { password?: string } = {},
): Fault {
  const { password, ...rest } = options;
  return {
    name: `Redis: ${name}`,
    ...rest,
    async open() {
      const passwordArgs = password === undefined ? [] : ['--requirepass', password];
      const server = await startRedis({ args: ['--appendfsync', 'always', ...passwordArgs] });
      const admin = connectAdmin(server.port, password);
      return {
        driver: redis({ url: server.url, timeout: TIMEOUT_MS, ...(password !== undefined && { password }) }),
        ...actionsOn(server, admin),
        async close() {
          admin.disconnect();
          await server[Symbol.asyncDispose]();
        },
      };
    },
  };
}

/** A fault of the network between the driver and Redis. */
function networkFault(name: string, inject: (proxy: FaultProxy) => Promise<void>): Fault {
  return {
    name: `Redis: ${name}`,
    async open() {
      const server = await startRedis();
      const proxy = await startProxy({ target: server.port });
      return {
        driver: redis({ url: `redis://127.0.0.1:${proxy.port}`, timeout: TIMEOUT_MS }),
        inject: () => inject(proxy),
        repair: () => proxy.pass(),
        async close() {
          await proxy[Symbol.asyncDispose]();
          await server[Symbol.asyncDispose]();
        },
      };
    },
  };
}

/** Connects a client for administrative commands. It ignores lost connections. */
export function connectAdmin(port: number, password?: string): Redis {
  const admin = new Redis({ port, host: '127.0.0.1', ...(password !== undefined && { password }) });
  admin.on('error', () => undefined);
  return admin;
}

const outOfMemory = (server: RedisServer, admin: Redis): Actions => ({
  inject: () => admin.config('SET', 'maxmemory', 1),
  repair: () => admin.config('SET', 'maxmemory', 0),
});

const killClients = (admin: Redis) => admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');

const expiredCertificate: Fault = {
  name: 'Redis: TLS certificate expired, connections closed',
  async open() {
    const server = await startRedis();
    const sockets = new Set<TLSSocket>();
    const tlsServer = createServer({ key: KEY, cert: VALID }, (client) => {
      const plain = connect(server.port, '127.0.0.1');
      sockets.add(client);
      client.once('close', () => sockets.delete(client));
      for (const socket of [client, plain]) socket.on('error', () => undefined);
      client.pipe(plain).pipe(client);
    }).listen(0, '127.0.0.1');
    await once(tlsServer, 'listening');
    const { port } = tlsServer.address() as AddressInfo;
    const closeAll = (): void => sockets.forEach((socket) => socket.destroy());
    const tls = { ca: VALID + EXPIRED, servername: 'redis.test' };
    return {
      driver: redis({ host: '127.0.0.1', port, tls, timeout: TIMEOUT_MS }),
      async inject() {
        tlsServer.setSecureContext({ key: KEY, cert: EXPIRED });
        closeAll();
      },
      async repair() {
        tlsServer.setSecureContext({ key: KEY, cert: VALID });
      },
      async close() {
        tlsServer.close();
        closeAll();
        await server[Symbol.asyncDispose]();
      },
    };
  },
};

const hangingDns: Fault = {
  name: 'Redis: DNS lookup hangs ¹, connections closed',
  async open() {
    const server = await startRedis();
    const admin = connectAdmin(server.port);
    const { lookup } = dns;
    let isHanging = false;
    const patchedLookup = (...[host, ...rest]: Parameters<typeof lookup>): void => {
      if (host !== 'redis.test') lookup(host, ...rest);
      else if (!isHanging) lookup('127.0.0.1', ...rest);
    };
    Object.assign(dns, { lookup: patchedLookup });
    return {
      driver: redis({ host: 'redis.test', port: server.port, timeout: TIMEOUT_MS }),
      async inject() {
        isHanging = true;
        await killClients(admin);
      },
      async repair() {
        isHanging = false;
      },
      async close() {
        Object.assign(dns, { lookup });
        admin.disconnect();
        await server[Symbol.asyncDispose]();
      },
    };
  },
};

export const redisFaults: Fault[] = [
  serverFault(
    'killed (`kill -9`) and restarted after 0.3 s',
    (server) => ({
      async inject() {
        await server.kill();
        await pause(300);
        await server.restart();
      },
    }),
    { endsByItself: true },
  ),
  serverFault('killed (`kill -9`) and down for a while', (server) => ({
    inject: () => server.kill(),
    repair: () => server.restart(),
  })),
  serverFault('frozen (SIGSTOP): connections stay open, but nothing is answered', (server) => ({
    inject: async () => server.freeze(),
    repair: async () => server.thaw(),
  })),
  networkFault('every reply is delayed by 300 ms', (proxy) => proxy.delay(300)),
  networkFault('every reply is delayed by up to 600 ms', (proxy) => proxy.delay(() => Math.random() * 600)),
  networkFault('every reply is delayed beyond the deadline', (proxy) => proxy.delay(2 * TIMEOUT_MS)),
  ...networkFaults(networkFault, 12),
  networkFault('replies arrive one byte at a time', (proxy) => proxy.trickle()),
  serverFault('out of memory (`maxmemory`, `noeviction`)', outOfMemory),
  serverFault('out of memory, during a sign-out', outOfMemory, { kinds: ['sign-out'] }),
  serverFault('demoted to a read-only replica by an unannounced failover', (server, admin) => ({
    // Nothing listens at the address of the master, so the replica keeps its data.
    inject: () => admin.replicaof('127.0.0.1', 1),
    repair: () => admin.replicaof('NO', 'ONE'),
  })),
  serverFault(
    'password changed, connections closed',
    (server, admin) => ({
      async inject() {
        await admin.config('SET', 'requirepass', 'another');
        await killClients(admin);
      },
      repair: () => admin.config('SET', 'requirepass', 'first'),
    }),
    { password: 'first' },
  ),
  expiredCertificate,
  hangingDns,
];
