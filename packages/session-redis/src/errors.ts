import { createError, type SessionErrorCode } from '@coatcheck/session-core/driver';
import { recordError } from '@coatcheck/session-core/redis';

export const DRIVER = 'session-redis';

/** The error for the caller, and what the driver may do about it. */
export interface ErrorRule {
  error: Error;
  /** A temporary state, such as loading after a restart. The command was not carried out and may be sent again. */
  transient?: boolean;
  /** This connection leads to the wrong server: the driver must connect again. */
  elsewhere?: boolean;
}

type Known = [pattern: RegExp, code: SessionErrorCode, message: string, how?: Omit<ErrorRule, 'error'>];

// `unavailable` makes all operations fail at once. So an error that only writes get is `refused`, and reads go on. Redis 6 puts words of its own
// before the error of a command inside a script, so the patterns match anywhere.
const KNOWN: Known[] = [
  [
    /All sentinels are unreachable.*(WRONGPASS|NOAUTH|invalid password)/,
    'configuration',
    'The Sentinels refuse the password, or want one. Correct `sentinel.username` and `sentinel.password`.',
  ],
  [/No such master/, 'configuration', 'The Sentinels know no group of that name. Correct `sentinel.name`.'],
  [/\bLOADING\b/, 'unavailable', 'Redis is still loading its data.', { transient: true }],
  [
    /\bREADONLY\b|\bNOTMASTER\b/,
    'refused',
    'This Redis is a replica and takes no writes. After a failover that passes; else name the master.',
    { transient: true, elsewhere: true },
  ],
  [/\bMASTERDOWN\b/, 'unavailable', 'This Redis has lost its master.', { transient: true, elsewhere: true }],
  [/\b(CLUSTERDOWN|TRYAGAIN)\b/, 'refused', 'The cluster does not serve all of its keys now.', { transient: true }],
  [/\bBUSY\b/, 'unavailable', 'Redis is busy with a script.', { transient: true }],
  [
    /\bNOREPLICAS\b/,
    'refused',
    'Redis has too few replicas to take writes (min-replicas-to-write).',
    { transient: true },
  ],
  [/max number of clients/, 'unavailable', 'Redis has no connection left (maxclients).', { transient: true }],
  [
    /\bWRONGPASS\b|invalid password/i,
    'configuration',
    'Redis refuses the password, or the user. Correct it in `url` or REDIS_URL, or in `username` and `password`.',
  ],
  [
    /\bNOAUTH\b/,
    'configuration',
    'Redis wants a password. Put it into `url` or REDIS_URL (redis://:password@host), or pass `password`.',
  ],
  [
    /arguments for 'auth'/,
    'configuration',
    'This Redis knows no users. Leave out the user: redis://:password@host, or only `password`.',
  ],
  [
    /DB index|SELECT is not allowed/,
    'configuration',
    'Redis has no database of that number. Correct the number at the end of the URL, or `db`; a cluster has only 0.',
  ],
  [
    /\bNOPERM\b/,
    'configuration',
    'The Redis user may not do what sessions need; the README of session-redis has the line that allows it.',
  ],
  [
    /\bMOVED\b/,
    'configuration',
    'This Redis is part of a cluster. Name its nodes with `cluster`, not with `url` or `host`.',
  ],
  [
    /cluster support disabled/,
    'configuration',
    'This Redis is no cluster. Name it with `url` or `host`, not with `cluster`.',
  ],
  [
    /\bOOM\b/,
    'refused',
    'Redis has no memory left (maxmemory), and the session was not stored. Give it more, or look for keys without an expiry.',
  ],
];

const TLS = /CERT|_TLS_|SSL_|^UNABLE_TO_|^EPROTO$/;

/** Undefined if there was no answer: the connection could not be made, or broke. */
export function explain(error: unknown): ErrorRule | undefined {
  const { name, message, code, lastNodeError } = error as Error & { code?: string; lastNodeError?: Error };
  if (lastNodeError) return explain(lastNodeError);
  if (code !== undefined && TLS.test(code)) return { error: tlsError(code) };
  const answered = name === 'ReplyError';
  if (!answered && !message.startsWith('All sentinels are unreachable')) return undefined;
  const aboutRecord = recordError(DRIVER, message);
  if (aboutRecord) return { error: aboutRecord };
  const known = KNOWN.find(([pattern]) => pattern.test(message));
  if (known) {
    const [, kind, text, how] = known;
    return { error: createError(DRIVER, kind, text), ...how };
  }
  if (!answered) return undefined;
  return {
    error: createError(DRIVER, 'refused', 'Redis answered with an error. See the cause for the reason.', {
      cause: error,
    }),
  };
}

/** Why there is no connection, as the system says it. */
export function reasonOf(error: unknown): string {
  const { code, message } = error as Error & { code?: unknown };
  return typeof code === 'string' ? code : message.replace(/\.$/, '');
}

/** For a write whose connection broke before the answer came. */
export function interrupted(): Error {
  return createError(
    DRIVER,
    'interrupted',
    'The connection to Redis broke while a write was under way. It may have been stored; it is not sent again.',
  );
}

/**
 * There was no connection in time.
 *
 * @param place where Redis should be.
 * @param reason why it is not there, as far as that is known.
 * @param wasSent whether a command that only reads went out before the connection broke.
 */
export function unreachable(place: string, reason: string = 'no answer', wasSent: boolean = false): Error {
  return createError(
    DRIVER,
    'unavailable',
    `Cannot connect to Redis at ${place}: ${reason}.${wasSent ? '' : ' Nothing was sent.'} Is Redis running there, and may this machine connect ` +
      `to it?`,
  );
}

function tlsError(code: string): Error {
  return createError(
    DRIVER,
    'configuration',
    `There is no TLS connection to Redis (${code}). Is TLS spoken on that port? A certificate that Node does not know needs \`tls.ca\`.`,
  );
}
