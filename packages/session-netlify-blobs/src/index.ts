import { driverConfig, type SessionDriverConfig } from '@coatcheck/session-core/driver';
import { checkTogether, netlifyBlobsKinds, type NetlifyBlobsDriverConfig } from './options.ts';

export { check, fromEnv, sweep } from '@coatcheck/session-core';
export type { MigrateFrom } from '@coatcheck/session-core';
export type { NetlifyBlobsDriverConfig };

/**
 * Stores Astro sessions in Netlify Blobs. On Netlify it needs no options.
 *
 * Each option except `migrateFrom` can be `fromEnv('NAME')`.
 *
 * @throws for unknown and contradictory options, and for values that JSON cannot represent: Astro writes the config into the build as
 *   JSON.
 * @example
 * export default defineConfig({ session: { driver: netlifyBlobsDriver({ deployScoped: true }) } });
 */
export function netlifyBlobsDriver(config?: NetlifyBlobsDriverConfig): SessionDriverConfig {
  checkTogether(config ?? {});
  return driverConfig(
    '@coatcheck/session-netlify-blobs',
    netlifyBlobsKinds,
    config,
    new URL('./astro.js', import.meta.url),
  );
}
