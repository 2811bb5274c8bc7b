import { createError, type SessionErrorCode } from '@coatcheck/session-core/driver';
import { recordError } from '@coatcheck/session-core/redis';

export const DRIVER = 'session-upstash';

/** How to handle an error of the client. */
export interface ErrorRule {
  /** The error for the caller. */
  error: Error;
  /** Whether the cause may go away by itself, so that the command can be sent again. */
  transient?: boolean;
  /** Whether the command may have been executed despite the error. */
  ambiguous?: boolean;
}

type Known = [pattern: RegExp, code: SessionErrorCode, message: string, handling?: Omit<ErrorRule, 'error'>];

// The client reports the text of an error response, but not its HTTP status. Upstash's texts: https://upstash.com/docs/redis/troubleshooting
const KNOWN: Known[] = [
  [
    /\b(WRONGPASS|NOAUTH)\b|^unauthorized/i,
    'configuration',
    'Upstash refuses the token. Correct `token` or UPSTASH_REDIS_REST_TOKEN: the console shows it under "REST API". It is not the password.',
  ],
  [
    /\bNOPERM\b/,
    'configuration',
    'The token does not allow what sessions need; it may be the read-only token. Use the standard token.',
  ],
  [
    /max (request|single record) size/i,
    'invalid-data',
    'The session is too large for one request to Upstash (ERR max request size exceeded; 1 MB, or the limit of your plan). The session ' +
      'that was stored before is kept. Store less in the session.',
  ],
  [
    /DB capacity quota|\bOOM\b/i,
    'refused',
    'The database is full, and the session was not stored. Choose a larger plan, or look for keys without an expiry.',
  ],
  [
    /max (daily )?requests? limit/i,
    'unavailable',
    'The request quota of the Upstash database is used up. Choose a larger plan, or wait for the next period.',
  ],
  [
    /max concurrent connections|max commands per second|too many requests|rate limit/i,
    'unavailable',
    'Upstash answers 429 (too many requests), even after retries.',
    { transient: true },
  ],
  [
    /\b(LOADING|MASTERDOWN|BUSY)\b/,
    'unavailable',
    'Upstash does not accept commands now, even after retries.',
    { transient: true },
  ],
  [
    /\b(READONLY|CLUSTERDOWN|TRYAGAIN|NOREPLICAS)\b/,
    'refused',
    'Upstash does not accept this command now, even after retries.',
    { transient: true },
  ],
];

/** Errors from before a request is sent, when there is no connection yet. Node, Bun and Deno each have their own texts. */
const NOT_CONNECTED =
  /ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|UND_ERR_CONNECT_TIMEOUT|ConnectionRefused|client error \(Connect\)/;
const TLS = /CERT|_TLS_|SSL_|^UNABLE_TO_|^EPROTO$/;

/**
 * The rule for an error of the client. The client's messages quote commands and replies, which contain session data, so only error messages
 * of Redis itself are passed on.
 */
export function explain(error: unknown): ErrorRule {
  const { name, message } = error as Error;
  if (name === 'UpstashError') return ruleFor(message.replace(/, command was: .*$/s, ''));
  if (name === 'UpstashJSONParseError') {
    const page = message.replace('Unable to parse response body: ', '');
    // The page of a gateway may contain an error text. A part of a JSON reply must not be searched for one, because it can contain session
    // data.
    return page.startsWith('{') ? unusableReply() : ruleFor(page);
  }
  return connectionError(error as Error);
}

function ruleFor(answer: string): ErrorRule {
  const aboutRecord = recordError(DRIVER, answer);
  if (aboutRecord) return { error: aboutRecord };
  const known = KNOWN.find(([pattern]) => pattern.test(answer));
  if (known) {
    const [, code, text, handling] = known;
    return { error: createError(DRIVER, code, text), ...handling };
  }
  const isFromRedis = /^[A-Z]{2,} /.test(answer) && !/\b(internal|unavailable|timed? ?out)\b/i.test(answer);
  if (!isFromRedis) return unusableReply();
  return {
    error: createError(DRIVER, 'refused', 'Upstash answered with an error. See the cause for the reason.', {
      cause: new Error(answer),
    }),
  };
}

function connectionError(error: Error): ErrorRule {
  const { code } = ((error.cause as Error | undefined) ?? error) as { code?: unknown };
  const reason = typeof code === 'string' ? code : '';
  if (TLS.test(reason)) {
    return {
      error: createError(
        DRIVER,
        'configuration',
        `Cannot open a TLS connection to Upstash (${reason}). Is \`url\` correct?`,
      ),
    };
  }
  return {
    error: createError(
      DRIVER,
      'unavailable',
      `Upstash could not be reached${reason && ` (${reason})`}. Is \`url\` or UPSTASH_REDIS_REST_URL correct, and does the database still exist?`,
    ),
    transient: true,
    ambiguous: !NOT_CONNECTED.test(`${reason} ${error.message}`),
  };
}

/** The rule for a reply that is broken, or that did not come from Redis. */
export function unusableReply(): ErrorRule {
  return {
    error: createError(
      DRIVER,
      'unavailable',
      'The replies are broken or not from Upstash: a gateway in between may be failing. Is `url` the REST URL of the database?',
    ),
    transient: true,
    ambiguous: true,
  };
}

/** The error for a write that got no usable reply. */
export function interrupted(): Error {
  return createError(
    DRIVER,
    'interrupted',
    'A write got no usable reply: the connection broke, or Upstash failed. It may have been stored; it is not sent again.',
  );
}

/** The error for a command that was not sent before its signal aborted. */
export function notSent(): Error {
  return createError(DRIVER, 'unavailable', 'Upstash could not be reached in time; nothing was sent.');
}
