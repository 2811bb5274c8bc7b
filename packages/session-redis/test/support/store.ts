import type { Lifetime, SessionStore } from '@coatcheck/session-core/driver';
import { redisStore } from '@coatcheck/session-core/redis';
import * as ioredis from 'ioredis';
import { openConnection } from '../../src/connection.ts';
import type { RedisDriverConfig } from '../../src/options.ts';
import { targetOf } from '../../src/target.ts';

/** A store as the driver opens it, for tests that need no engine around it. */
export function openStore(config: RedisDriverConfig, timeoutMs = 60_000): SessionStore {
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
export function openInspector(url: string, options: Omit<ioredis.RedisOptions, 'replyMapping'> = {}): ioredis.Redis {
  const client = new ioredis.Redis(url, options);
  // It may outlive its server by a moment, which is nobody's concern.
  client.on('error', () => undefined);
  return client;
}

/** What Redis itself says of the expiry of a key. */
export function timeLeftIn(client: Pick<ioredis.Redis, 'pttl'>): (key: string) => Promise<Lifetime | null> {
  return async (key) => {
    const ms = await client.pttl(key);
    return ms === -1 ? 'never' : ms === -2 ? null : ms;
  };
}

/** Resolves when `condition` holds; fails after `ms`. */
export async function eventually(condition: () => boolean | Promise<boolean>, ms = 60_000): Promise<void> {
  const deadline = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not within ${ms} ms: ${condition.toString()}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
