import { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { cloudflareKvDriver } from '@coatcheck/session-cloudflare-kv';
import cloudflareKv from '@coatcheck/session-cloudflare-kv/runtime';
import type { SessionDriver, SessionDriverConfig } from '@coatcheck/session-core';
import { d1Driver } from '@coatcheck/session-d1';
import d1 from '@coatcheck/session-d1/runtime';
import { durableObjectsDriver } from '@coatcheck/session-durable-objects';
import durableObjects from '@coatcheck/session-durable-objects/runtime';
import { fsDriver } from '@coatcheck/session-fs';
import fs from '@coatcheck/session-fs/runtime';
import { libsqlDriver } from '@coatcheck/session-libsql';
import libsql from '@coatcheck/session-libsql/runtime';
import { memoryDriver } from '@coatcheck/session-memory';
import memory from '@coatcheck/session-memory/runtime';
import { netlifyBlobsDriver } from '@coatcheck/session-netlify-blobs';
import netlifyBlobs from '@coatcheck/session-netlify-blobs/runtime';
import { postgresDriver } from '@coatcheck/session-postgres';
import postgres from '@coatcheck/session-postgres/runtime';
import { redisDriver } from '@coatcheck/session-redis';
import redis from '@coatcheck/session-redis/runtime';
import { sqliteDriver } from '@coatcheck/session-sqlite';
import sqlite from '@coatcheck/session-sqlite/runtime';
import { upstashDriver } from '@coatcheck/session-upstash';
import upstash from '@coatcheck/session-upstash/runtime';
import fc from 'fast-check';
import { rarely } from './damage.ts';
import { assert, property, SECRET, type Target } from './target.ts';
import { anything, attemptWild, OWN } from './wild.ts';

const ID = `55555555-5555-4555-8555-${SECRET}`;

interface Backend {
  config: (config?: never) => SessionDriverConfig;
  runtime: (config?: never, host?: { env: () => string | undefined }) => SessionDriver;
  /** Its own options, each with a value that it takes. */
  valid: Record<string, unknown>;
  /** For a driver that works without a server: what makes it a small one. */
  small?: Record<string, unknown>;
}

const tls = { ca: 'pem', cert: 'pem', key: SECRET, servername: 'x', rejectUnauthorized: true };
const sentinel = { name: 'x', nodes: ['127.0.0.1:1'], username: 'x', password: SECRET, tls };

const backends: Backend[] = [
  { config: memoryDriver, runtime: memory, valid: { maxSessions: 10, maxBytes: 1e6 }, small: { maxSessions: 10 } },
  { config: fsDriver, runtime: fs, valid: { directory: tmpdir() } },
  {
    config: sqliteDriver,
    runtime: sqlite,
    valid: { file: '/dev/null/sessions.db', table: 'x', createTable: false },
  },
  { config: cloudflareKvDriver, runtime: cloudflareKv, valid: { namespace: 'SESSION' } },
  { config: d1Driver, runtime: d1, valid: { database: 'DB', table: 'x', createTable: false } },
  {
    config: durableObjectsDriver,
    runtime: durableObjects,
    valid: { namespace: 'SESSIONS', locationHint: 'weur', jurisdiction: 'eu' },
  },
  {
    config: netlifyBlobsDriver,
    runtime: netlifyBlobs,
    valid: { name: 'sessions', deployScoped: false, siteID: 'x', token: SECRET },
  },
  {
    config: libsqlDriver,
    runtime: libsql,
    valid: { url: 'http://127.0.0.1:1', authToken: SECRET, table: 'x', createTable: false },
  },
  { config: upstashDriver, runtime: upstash, valid: { url: 'http://127.0.0.1:1', token: SECRET } },
  {
    config: redisDriver,
    runtime: redis,
    valid: {
      url: `redis://user:${SECRET}@127.0.0.1:1`,
      host: '127.0.0.1',
      port: 1,
      username: 'x',
      password: SECRET,
      db: 0,
      tls,
      cluster: ['127.0.0.1:1', { host: '127.0.0.1', port: 1 }],
      sentinel,
    },
  },
  {
    config: postgresDriver,
    runtime: postgres,
    valid: {
      url: `postgres://user:${SECRET}@127.0.0.1:1/db`,
      tls,
      maxConnections: 1,
      table: 'app.sessions',
      createTable: false,
    },
  },
];
const shared: Record<string, unknown> = {
  prefix: 'x',
  ttl: 60,
  idleTtl: 60,
  timeout: 100,
  secrets: [SECRET.repeat(3), SECRET.repeat(4)],
  migrateFrom: { until: '2100-01-01', base: 'x', prefix: 'x' },
};

/** One backend, and a config in which at most one thing is not as it should be. */
const configured = fc.constantFrom(...backends).chain((backend) => {
  const options: Record<string, unknown> = { ...backend.valid, ...shared };
  const names = Object.keys(options);
  const strangers = ['binding', 'secret', '__proto__', 'constructor', 'toString', '', '0'];
  return fc.record({
    backend: fc.constant(backend),
    given: fc
      .subarray(names, { maxLength: 3 })
      .map((some) => some.map((name): [string, unknown] => [name, options[name]])),
    wild: fc.option(
      fc.record({
        name: fc.oneof({ weight: 9, arbitrary: fc.constantFrom(...names) }, fc.constantFrom(...strangers)),
        /** Where an option has parts: in the place of which. */
        part: rarely(fc.constantFrom(...Object.keys(tls), 'name', 'nodes', 'host', 'base', '0', '1', 'x'), 2),
        make: anything,
      }),
      { freq: 10, nil: undefined },
    ),
    instead: rarely(anything, 30),
  });
});

/** What a site's author writes into a config, without types to help. */
export const options: Target = {
  name: 'options',
  cases: 200_000,
  casesInTests: 700,
  open() {
    const restore = disconnect();
    return {
      property: property(configured, async ({ backend, given, wild, instead }) => {
        const config = (instead ? instead() : build(backend, given, wild)) as never;
        const known = new Set([...Object.keys(backend.valid), ...Object.keys(shared), wild?.name]);

        const made = await attemptWild(() => backend.config(config));
        if (made instanceof Error) {
          const named = [...made.message.matchAll(/`([^`]*)`/g)].map(([, name]) => name!.split('.')[0]!);
          const isNamed = instead !== undefined || named.some((name) => known.has(name));
          assert(made === OWN || isNamed, 'The error does not say which option is wrong.', made.message);
        } else {
          assert(made.entrypoint instanceof URL, 'The entrypoint.');
          const built = JSON.parse(JSON.stringify(made.config)) as never;
          assert(isSame(made.config, built), 'A config was accepted that does not survive the build.', made.config);
          const again = await attemptWild(() => backend.config(built));
          assert(!(again instanceof Error), 'What was built is refused.', [made.config, again]);
        }

        const extra = { timeout: 20, ...backend.small };
        const driver = backend.runtime(instead ? config : ({ ...extra, ...(config as object) } as never), {
          env: () => undefined,
        });
        // The others would try to connect.
        if (made instanceof Error || backend.small) await attemptWild(() => driver.getItem(ID));
        forgetBackends();
      }),
      close: restore,
    };
  },
};

interface Wild {
  name: string;
  part: string | undefined;
  make(): unknown;
}

function build(backend: Backend, given: [string, unknown][], wild: Wild | undefined): unknown {
  const config = new Map(given);
  if (wild) {
    const whole = backend.valid[wild.name] ?? shared[wild.name];
    const hasParts = typeof whole === 'object' && wild.part !== undefined;
    const copy = hasParts && (Array.isArray(whole) ? [...(whole as unknown[])] : { ...whole });
    if (copy) Object.defineProperty(copy, wild.part!, { value: wild.make(), enumerable: true });
    config.set(wild.name, copy || wild.make());
  }
  return Object.fromEntries(config);
}

/** Whether JSON gave back what it was given. */
function isSame(value: unknown, back: unknown): boolean {
  if (typeof value !== 'object' || value === null || typeof back !== 'object' || back === null) return value === back;
  if (Array.isArray(value) || Array.isArray(back)) {
    const [items, other] = [value, back] as [unknown[], unknown[]];
    return items.length === other.length && items.every((item, index) => isSame(item, other[index]));
  }
  const keys = Object.keys(value).filter((key) => (value as Record<string, unknown>)[key] !== undefined);
  if (keys.length !== Object.keys(back).length) return false;
  return keys.every((key) => isSame(value[key as never], back[key as never]));
}

/** Nothing here may reach out, whatever a config says. */
function disconnect(): () => void {
  const { connect } = Socket.prototype;
  const { fetch } = globalThis;
  Socket.prototype.connect = function (this: Socket) {
    return this.destroy(Object.assign(new Error('No way out.'), { code: 'ECONNREFUSED' }));
  };
  globalThis.fetch = () => Promise.reject(new TypeError('No way out.'));
  return () => {
    Socket.prototype.connect = connect;
    globalThis.fetch = fetch;
  };
}

/** Every configuration has a backend of its own, for as long as the process lives. */
function forgetBackends(): void {
  const holder = globalThis as { [key: symbol]: { byOptions: Map<string, unknown> } | undefined };
  holder[Symbol.for('@coatcheck/session-core/backends@2')]?.byOptions.clear();
}
