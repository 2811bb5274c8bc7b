import { setTimeout as pause } from 'node:timers/promises';
import postgres from '@coatcheck/session-postgres/runtime';
import { Client } from 'pg';
import { startProxy, type FaultProxy } from '../support/fault-proxy.ts';
import { startPostgres, type PostgresOptions, type PostgresServer } from '../support/postgres-server.ts';
import { networkFaults, onNetwork, processFaults } from './common.ts';
import { TIMEOUT_MS, type Fault, type Scene } from './scene.ts';

type Actions = Pick<Scene, 'inject' | 'repair'>;

/** A fault of PostgreSQL itself, or of the network in front of it. */
function postgresFault(
  name: string,
  actionsOn: (server: PostgresServer, proxy: FaultProxy) => Actions,
  options: Omit<Fault, 'name' | 'open'> & PostgresOptions = {},
): Fault {
  const { settings = {}, tableDiskMb, ...rest } = options;
  return {
    name: `PostgreSQL: ${name}`,
    ...rest,
    async open() {
      const server = await startPostgres({ settings, ...(tableDiskMb && { tableDiskMb }) });
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

/** The primary dies. Its address leads to a standby, which accepts no writes until it is promoted 0.5 s later. */
const failover: Fault = {
  name: 'PostgreSQL: the primary is killed (`kill -9`); its address leads to a hot standby, which is promoted after 0.5 s ⁴',
  endsByItself: true,
  mayLose: true,
  async open() {
    const primary = await startPostgres();
    const standby = await startPostgres({ standbyOf: primary });
    const proxy = await startProxy({ target: primary.port });
    const url = primary.url.replace(`:${primary.port}/`, `:${proxy.port}/`);
    return {
      driver: postgres({ url, timeout: TIMEOUT_MS }),
      async inject() {
        proxy.redirect(standby.port);
        await primary.kill();
        await pause(500);
        await standby.query('SELECT pg_promote()');
      },
      note: async ({ acknowledged, lost }) =>
        `⁴ The replication of PostgreSQL is asynchronous unless \`synchronous_standby_names\` is set, so a failover can lose writes that were just ` +
        `acknowledged. This one lost ${lost.length} of ${acknowledged.toLocaleString('en')}.`,
      async close() {
        await proxy[Symbol.asyncDispose]();
        for (const server of [standby, primary]) await server[Symbol.asyncDispose]();
      },
    };
  },
};

/** Fills the disk, and then what is free in the pages of the sessions. */
async function fillDisk({ query }: PostgresServer): Promise<void> {
  await query('CREATE TABLE filler (text text)');
  const fill = async (statement: string): Promise<void> => {
    for (let size = 8192; size >= 1;) {
      try {
        await query(statement, ['x'.repeat(size)]);
      } catch {
        size /= 2;
      }
    }
  };
  await fill('INSERT INTO filler SELECT $1 FROM generate_series(1, 10)');
  await query('ALTER TABLE coatcheck_sessions SET (fillfactor = 100)');
  await fill(`INSERT INTO coatcheck_sessions (key, until, expires, fields)
    VALUES ('filler' || random(), 9e15, 9e15, jsonb_build_object('text', $1::text))`);
}

export const postgresFaults: Fault[] = [
  ...processFaults(postgresFault),
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
  ...networkFaults((name, inject) => postgresFault(name, onNetwork(inject)), 12),
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
  postgresFault(
    'the disk is full',
    (server) => ({
      inject: () => fillDisk(server),
      repair: () => server.query('DROP TABLE filler'),
    }),
    { tableDiskMb: 1 },
  ),
  failover,
];
