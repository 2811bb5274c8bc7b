import { defineDriver, type Host, type SessionDriver } from '@coatcheck/session-core/driver';
import { redisStore } from '@coatcheck/session-core/redis';
import { openConnection } from './connection.ts';
import { DRIVER } from './errors.ts';
import { targetOf, upstashKinds, variables, type UpstashDriverConfig } from './options.ts';

/** The driver itself, free of Astro. Drivers of one process with the same configuration share one client. */
const upstash: (config?: UpstashDriverConfig, host?: Host) => SessionDriver = defineDriver<UpstashDriverConfig>({
  name: DRIVER,
  options: upstashKinds,
  variables,
  async open(options, { env, timeoutMs }) {
    const target = targetOf(options, env);
    // The build that is nothing but fetch, and runs everywhere. The one for Node wants a cache mode that older Workers refuse.
    const client = await import('@upstash/redis/cloudflare');
    return redisStore(DRIVER, openConnection(client, target, timeoutMs));
  },
});

export default upstash;
