import { driverConfig, type SessionDriverConfig } from '@coatcheck/session-core/driver';
import { checkTogether, netlifyBlobsKinds, type NetlifyBlobsDriverConfig } from './options.ts';

export { check, fromEnv, sweep } from '@coatcheck/session-core';
export type { MigrateFrom } from '@coatcheck/session-core';
export type { NetlifyBlobsDriverConfig };

/**
 * Keeps Astro's sessions in Netlify Blobs: `session: { driver: netlifyBlobsDriver() }`.
 *
 * Throws for unknown and contradicting options, and for values that do not survive the JSON that a config goes through when a site is
 * built.
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
