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
import { TIMEOUT_MS, type Fault, type Scene } from './scene.ts';

type Act = Pick<Scene, 'strike' | 'mend'>;

/** Redis itself fails. What it had acknowledged is on disk. */
function onServer(
  name: string,
  act: (server: RedisServer, admin: Redis) => Act,
  traits: Omit<Fault, 'name' | 'open'> & { password?: string } = {},
): Fault {
  const { password, ...rest } = traits;
  return {
    name: `Redis: ${name}`,
    ...rest,
    async open() {
      const protection = password === undefined ? [] : ['--requirepass', password];
      const server = await startRedis({ args: ['--appendfsync', 'always', ...protection] });
      const admin = adminOf(server.port, password);
      return {
        driver: redis({ url: server.url, timeout: TIMEOUT_MS, ...(password !== undefined && { password }) }),
        ...act(server, admin),
        async close() {
          admin.disconnect();
          await server[Symbol.asyncDispose]();
        },
      };
    },
  };
}

/** The way to Redis fails. */
function onWay(name: string, strike: (proxy: FaultProxy) => Promise<void>): Fault {
  return {
    name: `Redis: ${name}`,
    async open() {
      const server = await startRedis();
      const proxy = await startProxy({ target: server.port });
      return {
        driver: redis({ url: `redis://127.0.0.1:${proxy.port}`, timeout: TIMEOUT_MS }),
        strike: () => strike(proxy),
        mend: () => proxy.pass(),
        async close() {
          await proxy[Symbol.asyncDispose]();
          await server[Symbol.asyncDispose]();
        },
      };
    },
  };
}

/** A client that commands the server and says nothing when that goes. */
export function adminOf(port: number, password?: string): Redis {
  const admin = new Redis({ port, host: '127.0.0.1', ...(password !== undefined && { password }) });
  admin.on('error', () => undefined);
  return admin;
}

const full = (server: RedisServer, admin: Redis): Act => ({
  strike: () => admin.config('SET', 'maxmemory', 1),
  mend: () => admin.config('SET', 'maxmemory', 0),
});

const killClients = (admin: Redis) => admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');

const expiredCertificate: Fault = {
  name: 'Redis: TLS certificate expired, connections closed',
  async open() {
    const server = await startRedis();
    const sockets = new Set<TLSSocket>();
    const front = createServer({ key: KEY, cert: VALID }, (client) => {
      const plain = connect(server.port, '127.0.0.1');
      sockets.add(client);
      client.once('close', () => sockets.delete(client));
      for (const socket of [client, plain]) socket.on('error', () => undefined);
      client.pipe(plain).pipe(client);
    }).listen(0, '127.0.0.1');
    await once(front, 'listening');
    const { port } = front.address() as AddressInfo;
    const closeAll = (): void => sockets.forEach((socket) => socket.destroy());
    const tls = { ca: VALID + EXPIRED, servername: 'redis.test' };
    return {
      driver: redis({ host: '127.0.0.1', port, tls, timeout: TIMEOUT_MS }),
      async strike() {
        front.setSecureContext({ key: KEY, cert: EXPIRED });
        closeAll();
      },
      async mend() {
        front.setSecureContext({ key: KEY, cert: VALID });
      },
      async close() {
        front.close();
        closeAll();
        await server[Symbol.asyncDispose]();
      },
    };
  },
};

const silentDns: Fault = {
  name: 'Redis: DNS lookup hangs ¹, connections closed',
  async open() {
    const server = await startRedis();
    const admin = adminOf(server.port);
    const { lookup } = dns;
    let isSilent = false;
    const answer = (...[host, ...rest]: Parameters<typeof lookup>): void => {
      if (host !== 'redis.test') lookup(host, ...rest);
      else if (!isSilent) lookup('127.0.0.1', ...rest);
    };
    Object.assign(dns, { lookup: answer });
    return {
      driver: redis({ host: 'redis.test', port: server.port, timeout: TIMEOUT_MS }),
      async strike() {
        isSilent = true;
        await killClients(admin);
      },
      async mend() {
        isSilent = false;
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
  onServer(
    'killed (`kill -9`) and restarted after 0.3 s',
    (server) => ({
      async strike() {
        await server.kill();
        await pause(300);
        await server.restart();
      },
    }),
    { passes: true },
  ),
  onServer('killed (`kill -9`) and down for a while', (server) => ({
    strike: () => server.kill(),
    mend: () => server.restart(),
  })),
  onServer('frozen (SIGSTOP): connections stay open, but nothing is answered', (server) => ({
    strike: async () => server.freeze(),
    mend: async () => server.thaw(),
  })),
  onWay('every reply is delayed by 300 ms', (proxy) => proxy.delay(300)),
  onWay('every reply is delayed by up to 600 ms', (proxy) => proxy.delay(() => Math.random() * 600)),
  onWay('every reply is delayed beyond the deadline', (proxy) => proxy.delay(2 * TIMEOUT_MS)),
  onWay('network black hole: everything sent is lost', (proxy) => proxy.silence()),
  onWay('connections are reset', (proxy) => proxy.reset()),
  onWay('connections break in the middle of a reply', (proxy) => proxy.cut(12)),
  onWay('replies arrive one byte at a time', (proxy) => proxy.trickle()),
  onServer('out of memory (`maxmemory`, `noeviction`)', full),
  onServer('out of memory, during a sign-out', full, { kinds: ['sign-out'] }),
  onServer('demoted to a read-only replica by an unannounced failover', (server, admin) => ({
    // Its master is nowhere, so that it keeps what it has.
    strike: () => admin.replicaof('127.0.0.1', 1),
    mend: () => admin.replicaof('NO', 'ONE'),
  })),
  onServer(
    'password changed, connections closed',
    (server, admin) => ({
      async strike() {
        await admin.config('SET', 'requirepass', 'another');
        await killClients(admin);
      },
      mend: () => admin.config('SET', 'requirepass', 'first'),
    }),
    { password: 'first' },
  ),
  expiredCertificate,
  silentDns,
];
