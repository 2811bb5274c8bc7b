import { setTimeout as pause } from 'node:timers/promises';
import postgres from '@coatcheck/session-postgres/runtime';
import { Client } from 'pg';
import { startProxy, type FaultProxy } from '../support/fault-proxy.ts';
import { startPostgres, type PostgresServer } from '../support/postgres-server.ts';
import { TIMEOUT_MS, type Fault, type Scene } from './scene.ts';

type Actions = Pick<Scene, 'inject' | 'repair'>;

/** A fault of PostgreSQL itself, or of the network in front of it. */
function postgresFault(
  name: string,
  actionsOn: (server: PostgresServer, proxy: FaultProxy) => Actions,
  options: Omit<Fault, 'name' | 'open'> & { settings?: Record<string, string | number> } = {},
): Fault {
  const { settings = {}, ...rest } = options;
  return {
    name: `PostgreSQL: ${name}`,
    ...rest,
    async open() {
      const server = await startPostgres({ settings });
      const proxy = await startProxy({ target: server.port });
      const url = server.url.replace(`:${server.port}/`, `:${proxy.port}/`);
      return {
        driver: postgres({ url, timeout: TIMEOUT_MS }),
        ...actionsOn(server, proxy),
        async close() {
          await proxy[Symbol.asyncDispose]();
          await server[Symbol.asyncDispose]();
        },
      };
    },
  };
}

const network = (inject: (proxy: FaultProxy) => Promise<void>) => (_server: PostgresServer, proxy: FaultProxy) => ({
  inject: () => inject(proxy),
  repair: () => proxy.pass(),
});

const END_CONNECTIONS = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`;

/** Another transaction that holds the locks of a statement until the fault ends. */
function lockedBy(statement: string): (server: PostgresServer) => Actions {
  return ({ url }) => {
    const client = new Client({ connectionString: url });
    return {
      async inject() {
        await client.connect();
        await client.query(`BEGIN; ${statement}`);
      },
      repair: () => client.end(),
    };
  };
}

export const postgresFaults: Fault[] = [
  postgresFault(
    'killed (`kill -9`) and restarted at once',
    (server) => ({
      async inject() {
        await server.kill();
        await server.restart();
      },
    }),
    { endsByItself: true },
  ),
  postgresFault('killed (`kill -9`) and down for a while', (server) => ({
    inject: () => server.kill(),
    repair: () => server.restart(),
  })),
  postgresFault('frozen (SIGSTOP): connections stay open, but nothing is answered', (server) => ({
    inject: async () => server.freeze(),
    repair: async () => server.thaw(),
  })),
  postgresFault(
    'an administrator ends all connections',
    (server) => ({
      async inject() {
        await server.query(END_CONNECTIONS);
        await pause(20);
      },
    }),
    { endsByItself: true },
  ),
  postgresFault(
    'network black hole: everything sent is lost',
    network((proxy) => proxy.silence()),
  ),
  postgresFault(
    'connections are reset',
    network((proxy) => proxy.reset()),
  ),
  postgresFault(
    'connections break in the middle of a reply',
    network((proxy) => proxy.cut(12)),
  ),
  postgresFault('another transaction has locked the rows', lockedBy('SELECT FROM coatcheck_sessions FOR UPDATE')),
  postgresFault('another transaction has locked the table', lockedBy('LOCK TABLE coatcheck_sessions')),
  postgresFault(
    'another transaction has locked the table, and `lock_timeout` is set',
    lockedBy('LOCK TABLE coatcheck_sessions'),
    { settings: { lock_timeout: 200 } },
  ),
  postgresFault('an unannounced failover to a server that is still read-only, connections closed', (server) => ({
    async inject() {
      await server.query('ALTER DATABASE postgres SET default_transaction_read_only = on');
      await server.query(END_CONNECTIONS);
    },
    repair: () =>
      server.query('SET transaction_read_only = off; ALTER DATABASE postgres RESET default_transaction_read_only'),
  })),
  postgresFault(
    'no connections left, connections closed',
    (server) => {
      const clients: Client[] = [];
      return {
        async inject() {
          await server.query(END_CONNECTIONS);
          for (;;) {
            const client = new Client({ connectionString: server.url });
            client.on('error', () => undefined);
            try {
              await client.connect();
            } catch {
              return;
            }
            clients.push(client);
          }
        },
        repair: () => Promise.all(clients.map((client) => client.end())),
      };
    },
    { settings: { max_connections: 12 } },
  ),
];
