import type { Lifetime, SessionStore } from '@coatcheck/session-core/driver';
import { redisStore } from '@coatcheck/session-core/redis';
import * as client from '@upstash/redis/cloudflare';
import { openConnection } from '../../src/connection.ts';
import type { Target } from '../../src/options.ts';

/** Opens a store as the driver does, for tests without the engine. */
export function openStore({ url, token }: Target, timeoutMs = 60_000): SessionStore {
  return redisStore('session-upstash', openConnection(client, { url, token }, timeoutMs));
}

/** The time until Redis expires a key, requested over Upstash's interface. */
export function timeLeftAt({ url, token }: Target): (key: string) => Promise<Lifetime | null> {
  const redis = new client.Redis({ url, token });
  return async (key) => {
    const ms = await redis.pttl(key);
    return ms === -1 ? 'never' : ms === -2 ? null : ms;
  };
}
