import { createError, type SessionErrorCode } from '@coatcheck/session-core/driver';
import { recordError } from '@coatcheck/session-core/redis';

export const DRIVER = 'session-upstash';

/** What an error of the client means to whoever waits for an answer. */
export interface Meaning {
  error: Error;
  /** A state that may go by; the command can be sent again. */
  passing?: boolean;
  /** Whether the command may have been carried out all the same. */
  uncertain?: boolean;
}

type Known = [pattern: RegExp, code: SessionErrorCode, message: string, how?: Omit<Meaning, 'error'>];

// The client does not tell the status of an answer, only its words: https://upstash.com/docs/redis/troubleshooting has Upstash's own.
const KNOWN: Known[] = [
  [
    /\b(WRONGPASS|NOAUTH)\b|^unauthorized/i,
    'configuration',
    'Upstash refuses the token. Correct `token` or UPSTASH_REDIS_REST_TOKEN: the console shows it under "REST API". The password is another one.',
  ],
  [
    /\bNOPERM\b/,
    'configuration',
    'The token may not do what sessions need: it may be the one that only reads. Take the standard token.',
  ],
  [
    /max (request|single record) size/i,
    'invalid-data',
    'The session is too large for one request to Upstash (ERR max request size exceeded; 1 MB, or what your plan says). What was stored ' +
      'before is kept. Keep less in the session.',
  ],
  [
    /DB capacity quota|\bOOM\b/i,
    'refused',
    'The database is full, and the session was not stored. Take a larger plan, or look for keys without an expiry.',
  ],
  [
    /max (daily )?requests? limit/i,
    'unavailable',
    'The requests that the plan of the Upstash database includes are used up. Take a larger plan, or wait for the next period.',
  ],
  [
    /max concurrent connections|max commands per second|too many requests|rate limit/i,
    'unavailable',
    'Upstash gets too many requests at once (429), and went on saying so.',
    { passing: true },
  ],
  [
    /\b(LOADING|MASTERDOWN|BUSY)\b/,
    'unavailable',
    'Upstash takes no commands now, and went on saying so.',
    { passing: true },
  ],
  [
    /\b(READONLY|CLUSTERDOWN|TRYAGAIN|NOREPLICAS)\b/,
    'refused',
    'Upstash does not take this command now, and went on saying so.',
    { passing: true },
  ],
];

/** From before a request is sent: the connection was not there yet. Node, Bun and Deno each have words of their own. */
const NOT_CONNECTED =
  /ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|UND_ERR_CONNECT_TIMEOUT|ConnectionRefused|client error \(Connect\)/;
const TLS = /CERT|_TLS_|SSL_|^UNABLE_TO_|^EPROTO$/;

/** The client quotes commands and answers, with all that is in them: nothing of its words is passed on but Redis's own. */
export function explain(error: unknown): Meaning {
  const { name, message } = error as Error;
  if (name === 'UpstashError') return meaningOf(message.replace(/, command was: .*$/s, ''));
  if (name === 'UpstashJSONParseError') {
    const page = message.replace('Unable to parse response body: ', '');
    // A gateway may say so in HTML. A part of a real answer is no such page, whatever a session in it says.
    return page.startsWith('{') ? unusable() : meaningOf(page);
  }
  return connectionError(error as Error);
}

function meaningOf(answer: string): Meaning {
  const aboutRecord = recordError(DRIVER, answer);
  if (aboutRecord) return { error: aboutRecord };
  const known = KNOWN.find(([pattern]) => pattern.test(answer));
  if (known) {
    const [, code, text, how] = known;
    return { error: createError(DRIVER, code, text), ...how };
  }
  const isOfRedis = /^[A-Z]{2,} /.test(answer) && !/\b(internal|unavailable|timed? ?out)\b/i.test(answer);
  if (!isOfRedis) return unusable();
  return {
    error: createError(DRIVER, 'refused', 'Upstash refused; the cause says why.', { cause: new Error(answer) }),
  };
}

function connectionError(error: Error): Meaning {
  const { code } = ((error.cause as Error | undefined) ?? error) as { code?: unknown };
  const reason = typeof code === 'string' ? code : '';
  if (TLS.test(reason)) {
    return {
      error: createError(
        DRIVER,
        'configuration',
        `There is no TLS connection to Upstash (${reason}). Is \`url\` right?`,
      ),
    };
  }
  return {
    error: createError(
      DRIVER,
      'unavailable',
      `Upstash could not be reached${reason && ` (${reason})`}. Is \`url\` or UPSTASH_REDIS_REST_URL right, and does the database still exist?`,
    ),
    passing: true,
    uncertain: !NOT_CONNECTED.test(`${reason} ${error.message}`),
  };
}

/** An answer that is broken, or that somebody else than Redis gave. */
export function unusable(): Meaning {
  return {
    error: createError(
      DRIVER,
      'unavailable',
      'The answers that come are broken, or not from Upstash: a gateway in between may be in trouble. Is `url` the REST URL of the database?',
    ),
    passing: true,
    uncertain: true,
  };
}

/** A write to which there was no usable answer. */
export function interrupted(): Error {
  return createError(
    DRIVER,
    'interrupted',
    'There was no usable answer to a write: the connection broke, or Upstash failed. It may have been stored; it is not sent again.',
  );
}

export function notSent(): Error {
  return createError(DRIVER, 'unavailable', 'Upstash could not be reached in time; nothing was sent.');
}
