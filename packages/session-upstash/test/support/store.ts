import type { Lifetime, SessionStore } from '@coatcheck/session-core/driver';
import { redisStore } from '@coatcheck/session-core/redis';
import * as client from '@upstash/redis/cloudflare';
import { openConnection } from '../../src/connection.ts';
import type { Target } from '../../src/options.ts';

/** A store as the driver opens it, for tests that need no engine around it. */
export function openStore({ url, token }: Target, timeoutMs = 60_000): SessionStore {
  return redisStore('session-upstash', openConnection(client, { url, token }, timeoutMs));
}

/** What Redis itself says of the expiry of a key, asked by way of Upstash's interface. */
export function timeLeftAt({ url, token }: Target): (key: string) => Promise<Lifetime | null> {
  const redis = new client.Redis({ url, token });
  return async (key) => {
    const ms = await redis.pttl(key);
    return ms === -1 ? 'never' : ms === -2 ? null : ms;
  };
}
