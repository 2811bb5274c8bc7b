import { defineDriver, type Host, type SessionDriver } from '@coatcheck/session-core/driver';
import { DRIVER, targetOf, type UpstashDriverConfig, upstashKinds, variables } from './options.ts';

/** The driver without Astro. Drivers in one process that have the same options share one client. */
const upstash: (config?: UpstashDriverConfig, host?: Host) => SessionDriver = defineDriver<UpstashDriverConfig>({
  name: DRIVER,
  options: upstashKinds,
  variables,
  async open(options, { env, timeoutMs }) {
    const target = targetOf(options, env);
    const [{ redisStore }, { openConnection }] = await Promise.all([
      import('@coatcheck/session-core/redis'),
      import('./connection.ts'),
    ]);
    // This build of the client uses only `fetch`, and runs everywhere. The build for Node sets a cache mode that older Workers refuse.
    const client = await import('@upstash/redis/cloudflare');
    return redisStore(DRIVER, openConnection(client, target, timeoutMs));
  },
});

export default upstash;
