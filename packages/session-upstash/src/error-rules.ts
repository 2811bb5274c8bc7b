import type { ErrorRule } from '@coatcheck/session-core/driver';

/**
 * What the error responses of Upstash mean. Loaded with the first of them.
 *
 * The client reports the text of an error response, but not its HTTP status. Upstash's texts:
 * https://upstash.com/docs/redis/troubleshooting
 */
export const rules: readonly ErrorRule[] = [
  {
    pattern: /\b(WRONGPASS|NOAUTH)\b|^unauthorized/i,
    code: 'configuration',
    message:
      'Upstash refuses the token. Correct `token` or UPSTASH_REDIS_REST_TOKEN: the console shows it under "REST API". It is not the password.',
  },
  {
    pattern: /\bNOPERM\b/,
    code: 'configuration',
    message: 'The token does not allow what sessions need; it may be the read-only token. Use the standard token.',
  },
  {
    pattern: /max (request|single record) size/i,
    code: 'invalid-data',
    message:
      'The session is too large for one request to Upstash (ERR max request size exceeded; 1 MB, or the limit of your plan). The session ' +
      'that was stored before is kept. Store less in the session.',
  },
  {
    pattern: /DB capacity quota|\bOOM\b/i,
    code: 'refused',
    message:
      'The database is full, and the session was not stored. Choose a larger plan, or look for keys without an expiry.',
  },
  {
    pattern: /max (daily )?requests? limit/i,
    code: 'unavailable',
    message: 'The request quota of the Upstash database is used up. Choose a larger plan, or wait for the next period.',
  },
  {
    pattern: /max concurrent connections|max commands per second|too many requests|rate limit/i,
    code: 'unavailable',
    message: 'Upstash answers 429 (too many requests), even after retries.',
    transient: true,
  },
  {
    pattern: /\b(LOADING|MASTERDOWN|BUSY)\b/,
    code: 'unavailable',
    message: 'Upstash does not accept commands now, even after retries.',
    transient: true,
  },
  {
    pattern: /\b(READONLY|CLUSTERDOWN|TRYAGAIN|NOREPLICAS)\b/,
    code: 'refused',
    message: 'Upstash does not accept this command now, even after retries.',
    transient: true,
  },
];
