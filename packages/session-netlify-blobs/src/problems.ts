import { createError } from '@coatcheck/session-core/driver';
import { type Failure, isTransient } from './client.ts';
import { DRIVER } from './options.ts';

/**
 * The error for a failed request, or for an error of Netlify's client. Undefined for one that is not known. Loaded with the first failure.
 *
 * @param ambiguous whether the request was a write that may have been stored.
 */
export function problemOf(failure: Failure, ambiguous: boolean): Error | undefined {
  const { name, status, connectionCode } = failure;
  if (isTransient(failure) && status !== 429) {
    const what = `Netlify Blobs does not answer correctly (${connectionCode ?? status}), even after retries.`;
    return ambiguous
      ? createError(DRIVER, 'interrupted', `${what} The write may have been stored.`)
      : createError(
          DRIVER,
          'unavailable',
          `${what} See netlifystatus.com; in development, is the local server running?`,
        );
  }
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
