import type { Change, SessionStore, StoreCall } from '@coatcheck/session-core';
import { redisStore } from '@coatcheck/session-core/redis';
import * as client from '@upstash/redis/cloudflare';
import { openConnection } from '../../src/connection.ts';
import type { Target } from '../../src/options.ts';

/** A store as the driver opens it, for tests that need no engine around it. */
export function openStore({ url, token }: Target, timeoutMs = 5000): SessionStore {
  return redisStore('session-upstash', openConnection(client, { url, token }, timeoutMs));
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
