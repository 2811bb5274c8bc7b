import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import type { Change, SessionStore, StoreCall } from '@coatcheck/session-core';
import { redisStore } from '@coatcheck/session-core/redis';
import * as ioredis from 'ioredis';
import { openConnection } from '../../src/connection.ts';
import type { RedisDriverConfig } from '../../src/options.ts';
import { targetOf } from '../../src/target.ts';

/** A store as the driver opens it, for tests that need no engine around it. */
export function openStore(config: RedisDriverConfig, timeoutMs = 5000): SessionStore {
  return redisStore(
    'session-redis',
    openConnection(
      ioredis,
      targetOf(config as never, () => undefined),
      timeoutMs,
    ),
  );
}

/** A client that looks at what the store did. */
export function openInspector(url: string): ioredis.Redis {
  const client = new ioredis.Redis(url);
  // It may outlive its server by a moment, which is nobody's concern.
  client.on('error', () => undefined);
  return client;
}

/** A call that is given up after `ms`. */
export function call(ms = 5000): StoreCall {
  return { signal: AbortSignal.timeout(ms) };
}

export function change(parts: Partial<Change>): Change {
  return { set: new Map(), unset: [], lifetimeMs: 3_600_000, capMs: 3_600_000, now: Date.now(), ...parts };
}

let keys = 0;

export function newKey(): string {
  return `test:${process.pid}:${Date.now()}:${(keys += 1)}`;
}

/** A port of this machine on which nothing listens. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** Resolves when `condition` holds; fails after `ms`. */
export async function eventually(condition: () => boolean | Promise<boolean>, ms = 5000): Promise<void> {
  const deadline = Date.now() + ms;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`not within ${ms} ms: ${condition.toString()}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
