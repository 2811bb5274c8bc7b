import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import fastifyCookie from '@fastify/cookie';
import fastifySession from '@fastify/session';
import { createSessions, sweep, type SessionDriver } from '@coatcheck/session-core';
import postgresRuntime from '@coatcheck/session-postgres/runtime';
import redisRuntime from '@coatcheck/session-redis/runtime';
import sqliteRuntime from '@coatcheck/session-sqlite/runtime';
import { getRequestListener } from '@hono/node-server';
import { useSession, useSessionStorage, type SessionEnv } from '@hono/session';
import sqliteSessionStore from 'better-sqlite3-session-store';
import connectPgSimple from 'connect-pg-simple';
import { RedisStore } from 'connect-redis';
import { DatabaseSync } from 'node:sqlite';
import { Pool } from 'pg';
import expressApp, { type Request, type Response } from 'express';
import expressSession from 'express-session';
import fastifyApp from 'fastify';
import { Hono } from 'hono';
import { Redis } from 'ioredis';
import { createClient } from 'redis';
import { pageAt } from './pages.ts';
import { HSET, rawId, rawSession } from './subjects.ts';

/**
 * The same pages on every server, each as its documentation sets it up, on the backend that the URL names: `redis:`, and for some `postgres:`
 * or `sqlite:` with the path of a file. `calls` is told of every command. Without a `url` it is the same server without any sessions.
 */
export const servers = { node, raw, express, fastify, hono };

export type ServerName = keyof typeof servers;

type Listener = (request: IncomingMessage, response: ServerResponse) => unknown;

interface Options {
  url: string | undefined;
  onCall?: () => void;
}

const SECRET = 'a secret of at least thirty-two characters';
const WEEK_S = 7 * 86_400;
/** The connections of a pool. */
const CONNECTIONS = 32;

/** `node:http` with our `Session`. At `/sweep` it removes expired sessions while it goes on to answer, and says how many. */
async function node({ url }: Options): Promise<Listener> {
  const driver = url ? driverAt(url) : undefined;
  const sessions = driver && createSessions({ driver });
  return async (request, response) => {
    if (driver && request.url === '/sweep') return response.end(String(await sweep(driver, 10_000)));
    const session = sessions?.open(request.headers.cookie);
    const body = session && (await pageAt(request.url!)(session));
    const setCookie = await session?.commit();
    if (setCookie) response.setHeader('set-cookie', setCookie);
    response.setHeader('content-type', 'application/json').end(JSON.stringify(body ?? null));
  };
}

/** Our driver for a URL. */
function driverAt(url: string): SessionDriver {
  if (url.startsWith('postgres:')) return postgresRuntime({ url, maxConnections: CONNECTIONS });
  if (url.startsWith('sqlite:')) return sqliteRuntime({ file: url.slice('sqlite:'.length) });
  return redisRuntime({ url });
}

/** `node:http` by hand. */
async function raw({ url }: Options): Promise<Listener> {
  const client = url ? new Redis(url) : undefined;
  await client?.script('LOAD', HSET);
  return async (request, response) => {
    const id = rawId(request.headers.cookie);
    const body = client && (await pageAt(request.url!)(rawSession(client, id)));
    if (!request.headers.cookie) response.setHeader('set-cookie', `astro-session=${id}`);
    response.setHeader('content-type', 'application/json').end(JSON.stringify(body ?? null));
  };
}

async function express({ url, onCall }: Options): Promise<Listener> {
  const app = expressApp();
  if (url) {
    const store = await expressStoreAt(url, onCall);
    app.use(expressSession({ store, resave: false, saveUninitialized: false, secret: SECRET }));
  }
  const answer = async (request: Request<{ page: string }>, response: Response): Promise<void> => {
    const data = request.session as unknown as Record<string, unknown> | undefined;
    const session = data && {
      get: (key: string) => data[key],
      set: (key: string, value: unknown) => (data[key] = value),
    };
    const body = session && (await pageAt(request.params.page)(session));
    response.json(body ?? null);
  };
  app.get('/:page', (request, response) => void answer(request, response));
  return app;
}

/** The store of express-session for a URL. */
async function expressStoreAt(url: string, onCall?: () => void): Promise<expressSession.Store> {
  if (url.startsWith('postgres:')) {
    const PgStore = connectPgSimple(expressSession);
    return new PgStore({ pool: new Pool({ connectionString: url, max: CONNECTIONS }), createTableIfMissing: true });
  }
  if (url.startsWith('sqlite:')) {
    // Written for better-sqlite3, whose interface is that of `node:sqlite`.
    const client = new DatabaseSync(url.slice('sqlite:'.length));
    client.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL');
    const SqliteStore = sqliteSessionStore(expressSession);
    return new SqliteStore({ client });
  }
  return new RedisStore({ client: await nodeRedis(url, onCall) });
}

async function fastify({ url, onCall }: Options): Promise<Listener> {
  const app = fastifyApp();
  if (url) {
    const store = new RedisStore({ client: await nodeRedis(url, onCall) });
    await app.register(fastifyCookie);
    await app.register(fastifySession, { store, secret: SECRET, saveUninitialized: false, cookie: { secure: false } });
  }
  app.get<{ Params: { page: string } }>('/:page', async (request, reply) => {
    const body = url && (await pageAt(request.params.page)(request.session));
    return reply.type('application/json').send(JSON.stringify(body ?? null));
  });
  await app.ready();
  return (request, response) => app.routing(request, response);
}

async function hono({ url, onCall }: Options): Promise<Listener> {
  const app = new Hono<SessionEnv>();
  if (url) {
    const client = await nodeRedis(url, onCall);
    const storage = {
      get: async (id: string) => JSON.parse((await client.get(id)) ?? 'null'),
      set: (id: string, data: unknown) =>
        client.set(id, JSON.stringify(data), { expiration: { type: 'EX', value: WEEK_S } }),
      delete: (id: string) => client.del(id),
    };
    app.use(useSessionStorage(storage as never), useSession({ secret: SECRET }));
  }
  app.get('/:page', async (context) => {
    if (!url) return context.json(null);
    const { session } = context.var;
    let reading: Promise<Record<string, unknown> | null> | undefined;
    const changes: Record<string, unknown> = {};
    const body = await pageAt(context.req.param('page'))({
      get: async (key) => (await (reading ??= session.get()))?.[key],
      set: (key, value) => (changes[key] = value),
    });
    if (Object.keys(changes).length > 0) await session.update((data) => ({ ...data, ...changes }));
    return context.json(body ?? null);
  });
  return getRequestListener(app.fetch);
}

async function nodeRedis(url: string, onCall?: () => void) {
  const client = await createClient({ url }).connect();
  if (!onCall) return client;
  return new Proxy(client, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name);
      if (typeof value !== 'function') return value;
      return (...args: unknown[]) => {
        onCall();
        return (value as (...all: unknown[]) => unknown).apply(target, args);
      };
    },
  });
}

/** Resolves to the server's address. */
export async function listen(listener: Listener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

// As a process of its own, which ends with the one that started it: node servers.ts <name> [REDIS_URL]
if (import.meta.main) {
  const [name, url] = process.argv.slice(2) as [ServerName, string | undefined];
  const listener = await servers[name]({ url });
  const address = await listen((request, response) => {
    if (request.url !== '/cpu') return listener(request, response);
    const { user, system } = process.cpuUsage();
    response.end(String(user + system));
  });
  process.once('disconnect', () => process.exit());
  process.send!(address);
}
