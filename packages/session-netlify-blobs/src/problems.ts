import { createError } from '@coatcheck/session-core/driver';
import type { Failure } from './client.ts';
import { DRIVER } from './options.ts';

/**
 * The error for what does not go away by itself: a wrong configuration, or a request that Netlify refuses. Undefined for any other error.
 * Loaded with the first of them.
 */
export function problemOf({ name, status }: Failure): Error | undefined {
  if (name === 'MissingBlobsEnvironmentError') {
    return createError(
      DRIVER,
      'configuration',
      'Netlify Blobs is not available here: NETLIFY_BLOBS_CONTEXT is not set. Netlify sets it on its servers, and so do ' +
        '`netlify dev` and, with the adapter `@astrojs/netlify`, `astro dev`. Anywhere else, set `siteID` and `token`.',
    );
  }
  if (name === 'BlobsConsistencyError') {
    return createError(
      DRIVER,
      'configuration',
      'Sessions need consistent reads, which Netlify does not offer here: NETLIFY_BLOBS_CONTEXT has no `uncachedEdgeURL`. This happens ' +
        'in functions in Lambda compatibility mode. Deploy with `@astrojs/netlify`, or set `siteID` and `token`.',
    );
  }
  if (status === 401 || status === 403) {
    return createError(
      DRIVER,
      'refused',
      `Netlify refuses access to the blob store (${status}). If you use \`siteID\` and \`token\`: is the token valid for this site? ` +
        'During a build, only a store with `deployScoped: true` can be written.',
    );
  }
  if (status === 429) {
    return createError(
      DRIVER,
      'refused',
      'Netlify limits how often this site may use its blobs (429). Try again later.',
    );
  }
  return status ? createError(DRIVER, 'refused', `Netlify Blobs refuses the request (${status}).`) : undefined;
}
