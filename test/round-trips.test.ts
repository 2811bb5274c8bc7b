import { mkdtemp, rm } from 'node:fs/promises';
import files from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import cloudflareKv from '@coatcheck/session-cloudflare-kv/runtime';
import { createSessions, type Session, type SessionDriver } from '@coatcheck/session-core';
import d1 from '@coatcheck/session-d1/runtime';
import durableObjects from '@coatcheck/session-durable-objects/runtime';
import fs from '@coatcheck/session-fs/runtime';
import libsql from '@coatcheck/session-libsql/runtime';
import netlifyBlobs from '@coatcheck/session-netlify-blobs/runtime';
import postgres from '@coatcheck/session-postgres/runtime';
import redis from '@coatcheck/session-redis/runtime';
import { fromUnstorage } from '@coatcheck/session-unstorage';
import upstash from '@coatcheck/session-upstash/runtime';
import { Redis } from 'ioredis';
import pg from 'pg';
import { expect, onTestFinished, test } from 'vitest';
import { startKv } from '../packages/session-cloudflare-kv/test/support/kv.ts';
import { counted as countD1 } from '../packages/session-d1/test/support/counted.ts';
import { startD1 } from '../packages/session-d1/test/support/d1.ts';
import { startNamespace } from '../packages/session-durable-objects/test/support/objects.ts';
import { startSqld } from '../packages/session-libsql/test/support/sqld.ts';
import { contextFor, startBlobs, startGateway } from '../packages/session-netlify-blobs/test/support/blobs.ts';
import { makeDriver } from '../packages/session-unstorage/test/support/make-driver.ts';
import { readPages, tablesOf } from './support/pages.ts';
import { sharedPostgres } from './support/postgres-server.ts';
import { startRedis } from './support/redis-server.ts';
import { startUpstashBridge } from './support/upstash-bridge.ts';

// The number of requests to a backend for a read, a write and a removal matches the table in `docs/choosing-a-backend.md`.

interface Asked {
  /** The number of requests. */
  operations: number;
  /** The number of round trips: concurrent requests count once. */
  trips: number;
}

interface Counted {
  driver: SessionDriver;
  asked(): Asked | Promise<Asked>;
}

/** Wraps methods of `target` so that their calls are counted. */
function count<Target extends object>(target: Target, methods: (keyof Target)[]): () => Asked {
  const asked: Asked = { operations: 0, trips: 0 };
  let underWay = 0;
  for (const method of methods) {
    const ask = target[method] as (...args: unknown[]) => unknown;
    const counted = async function (this: unknown, ...args: unknown[]): Promise<unknown> {
      asked.operations += 1;
      if (underWay++ === 0) asked.trips += 1;
      await turn();
      try {
        return await ask.apply(this, args);
      } finally {
        underWay -= 1;
      }
    };
    target[method] = counted as Target[typeof method];
  }
  return () => ({ ...asked });
}

const inTurn = (operations: number): Asked => ({ operations, trips: operations });

const onEnd = (resource: AsyncDisposable): void => onTestFinished(() => resource[Symbol.asyncDispose]());

async function countedRedis(): Promise<Counted> {
  const server = await startRedis();
  onEnd(server);
  const inspector = new Redis(server.url);
  const monitor = await inspector.monitor();
  onTestFinished(() => {
    inspector.disconnect();
    monitor.disconnect();
  });
  const commands: string[] = [];
  monitor.on('monitor', (_time: string, [name = '', ...args]: string[], source: string) => {
    if (source !== 'lua') commands.push([name.toLowerCase(), ...args].join(' '));
  });
  let inspections = 0;
  return {
    driver: redis({ url: server.url }),
    async asked() {
      inspections += 1;
      await inspector.echo(`${inspections}`);
      await expect.poll(() => commands.includes(`echo ${inspections}`)).toBe(true);
      return inTurn(commands.filter((command) => !command.startsWith('echo ')).length);
    },
  };
}

async function countedPostgres(): Promise<Counted> {
  const { query } = pg.Client.prototype;
  onTestFinished(() => void (pg.Client.prototype.query = query));
  // Each call sends one statement and waits for its answer.
  const asked = count(pg.Client.prototype as { query(...args: unknown[]): unknown }, ['query']);
  return { driver: postgres({ url: await (await sharedPostgres()).createDatabase() }), asked };
}

async function countedUpstash(): Promise<Counted> {
  const server = await startRedis();
  onEnd(server);
  const bridge = await startUpstashBridge(server.url);
  onEnd(bridge);
  const driver = upstash({ url: bridge.url, token: bridge.token });
  return { driver, asked: () => inTurn(bridge.requests.length) };
}

async function countedNetlifyBlobs(): Promise<Counted> {
  const blobs = await startBlobs();
  const gateway = await startGateway(blobs);
  onEnd(blobs);
  onEnd(gateway);
  process.env['NETLIFY_BLOBS_CONTEXT'] = contextFor(gateway.port);
  onTestFinished(() => void delete process.env['NETLIFY_BLOBS_CONTEXT']);
  return { driver: netlifyBlobs(), asked: () => inTurn(gateway.requests.length) };
}

async function countedFs(): Promise<Counted> {
  const directory = await mkdtemp(join(tmpdir(), 'coatcheck-round-trips-'));
  const original = { ...files };
  onTestFinished(async () => {
    Object.assign(files, original);
    syncBuiltinESMExports();
    await rm(directory, { recursive: true });
  });
  const asked = count(files, ['readFile', 'writeFile', 'open', 'link', 'rename', 'unlink', 'stat', 'readdir']);
  syncBuiltinESMExports();
  return { driver: fs({ directory }), asked };
}

async function countedCloudflareKv(): Promise<Counted> {
  const kv = await startKv('SESSION');
  onEnd(kv);
  const { SESSION } = kv.namespaces;
  const client = {
    get: (key: string, options?: object) => SESSION!.get(key, options),
    put: (key: string, value: string, options?: object) => SESSION!.put(key, value, options),
    delete: (key: string) => SESSION!.delete(key),
  };
  const asked = count(client, ['get', 'put', 'delete']);
  return { driver: cloudflareKv({ client }), asked };
}

async function countedD1(): Promise<Counted> {
  const started = await startD1('DB');
  onEnd(started);
  const { client, usage } = countD1(started.databases['DB']!);
  let calls = 0;
  return { driver: d1({ client }), asked: () => inTurn((calls += usage().calls)) };
}

async function countedDurableObjects(): Promise<Counted> {
  const objects = await startNamespace();
  onEnd(objects);
  const { namespace } = objects;
  const object = { operate: (id: object, request: object) => namespace.get(id).operate(request) };
  const asked = count(object, ['operate']);
  const client = {
    idFromName: (name: string) => namespace.idFromName(name),
    get: (id: object) => ({ operate: (request: object) => object.operate(id, request) }),
    jurisdiction: () => client,
  };
  return { driver: durableObjects({ client }), asked };
}

async function countedLibsql(): Promise<Counted> {
  const server = await startSqld();
  onEnd(server);
  const original = globalThis.fetch;
  onTestFinished(() => void (globalThis.fetch = original));
  const asked = count(globalThis as { fetch(...args: unknown[]): unknown }, ['fetch']);
  return { driver: libsql({ url: server.url, authToken: server.authToken }), asked };
}

function countedUnstorage(): Counted {
  const driver = makeDriver['memory']!({});
  const asked = count(driver, ['getItem', 'setItem', 'removeItem']);
  return { driver: fromUnstorage(driver), asked };
}

const backends: Record<string, () => Counted | Promise<Counted>> = {
  'session-redis': countedRedis,
  'session-postgres': countedPostgres,
  'session-upstash': countedUpstash,
  'session-d1': countedD1,
  'session-libsql': countedLibsql,
  'session-netlify-blobs': countedNetlifyBlobs,
  'session-fs': countedFs,
  'session-cloudflare-kv': countedCloudflareKv,
  'session-durable-objects': countedDurableObjects,
  'session-unstorage': countedUnstorage,
};

const [table] = tablesOf(
  readPages().find(({ path }) => path === 'docs/choosing-a-backend.md')!,
  'What each backend guarantees',
);

/** The cells of these columns of the table, by package. */
const said = new Map(
  table!.rows.map(({ cells }) => {
    const [, name = ''] = /\[([\w-]+)\]/.exec(cells[0]!) ?? [];
    return [name, ['a read', 'a write', 'a removal'].map((column) => cells[table!.header.indexOf(column)])];
  }),
);

test('the table has every backend that is counted here, and those in the process', () => {
  const inProcess = ['session-memory', 'session-sqlite'];
  expect([...said.keys()].sort()).toEqual([...Object.keys(backends), ...inProcess].sort());
  for (const name of inProcess) expect(said.get(name)).toEqual(['0', '0', '0']);
});

test.each(Object.entries(backends))('%s gets as many requests as the table says', async (name, open) => {
  const { driver, asked } = await open();
  const sessions = createSessions({ driver });
  let cookie = '';
  const visit = async (act: (session: Session) => unknown): Promise<string> => {
    const before = await asked();
    const session = sessions.open(cookie);
    await act(session);
    cookie = (await session.commit())?.split(';')[0] ?? cookie;
    const after = await asked();
    const [operations, trips] = [after.operations - before.operations, after.trips - before.trips];
    return operations === trips ? `${trips}` : `${trips} (${operations} at once)`;
  };
  // The first operations also connect, create folders and load scripts, so they are not counted.
  await visit((session) => session.set('user', 'ada'));
  await visit((session) => session.destroy());
  cookie = '';
  await visit((session) => session.set('cart', ['hat']));
  const read = await visit((session) => session.get('cart'));
  const write = await visit((session) => session.set('cart', ['hat', 'coat']));
  const removal = await visit((session) => session.destroy());
  expect([read, write, removal]).toEqual(said.get(name));
});
