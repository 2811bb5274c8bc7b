import { createError } from '@coatcheck/session-core/driver';
import { explainReply, unknownReply, type ErrorRule, type Failure } from '@coatcheck/session-core/redis';

export const DRIVER = 'session-redis';

// `unavailable` opens the circuit breaker, so that reads fail at once, too. An error that only writes get is `refused`.
const RULES: ErrorRule[] = [
  {
    pattern: /All sentinels are unreachable.*(WRONGPASS|NOAUTH|invalid password)/,
    code: 'configuration',
    message: 'The Sentinels refuse the password, or want one. Correct `sentinel.username` and `sentinel.password`.',
  },
  {
    pattern: /No such master/,
    code: 'configuration',
    message: 'The Sentinels know no group of that name. Correct `sentinel.name`.',
  },
  { pattern: /\bLOADING\b/, code: 'unavailable', message: 'Redis is still loading its data.', transient: true },
  {
    pattern: /\bREADONLY\b|\bNOTMASTER\b/,
    code: 'refused',
    message: 'This Redis is a replica and takes no writes. After a failover that passes; else name the master.',
    transient: true,
    elsewhere: true,
  },
  {
    pattern: /\bMASTERDOWN\b/,
    code: 'unavailable',
    message: 'This Redis has lost its master.',
    transient: true,
    elsewhere: true,
  },
  {
    pattern: /\b(CLUSTERDOWN|TRYAGAIN)\b/,
    code: 'refused',
    message: 'The cluster does not serve all of its keys now.',
    transient: true,
  },
  { pattern: /\bBUSY\b/, code: 'unavailable', message: 'Redis is busy with a script.', transient: true },
  {
    pattern: /\bNOREPLICAS\b/,
    code: 'refused',
    message: 'Redis has too few replicas to take writes (min-replicas-to-write).',
    transient: true,
  },
  {
    pattern: /max number of clients/,
    code: 'unavailable',
    message: 'Redis has no connection left (maxclients).',
    transient: true,
  },
  {
    pattern: /\bWRONGPASS\b|invalid password/i,
    code: 'configuration',
    message:
      'Redis refuses the password, or the user. Correct it in `url` or REDIS_URL, or in `username` and `password`.',
  },
  {
    pattern: /\bNOAUTH\b/,
    code: 'configuration',
    message: 'Redis wants a password. Put it into `url` or REDIS_URL (redis://:password@host), or pass `password`.',
  },
  {
    pattern: /arguments for 'auth'/,
    code: 'configuration',
    message: 'This Redis knows no users. Leave out the user: redis://:password@host, or only `password`.',
  },
  {
    pattern: /DB index|SELECT is not allowed/,
    code: 'configuration',
    message:
      'Redis has no database of that number. Correct the number at the end of the URL, or `db`; a cluster has only 0.',
  },
  {
    pattern: /\bNOPERM\b/,
    code: 'configuration',
    message: 'The Redis user may not do what sessions need; the README of session-redis has the line that allows it.',
  },
  {
    pattern: /\bMOVED\b/,
    code: 'configuration',
    message: 'This Redis is part of a cluster. Name its nodes with `cluster`, not with `url` or `host`.',
  },
  {
    pattern: /cluster support disabled/,
    code: 'configuration',
    message: 'This Redis is no cluster. Name it with `url` or `host`, not with `cluster`.',
  },
  {
    pattern: /\bOOM\b/,
    code: 'refused',
    message:
      'Redis has no memory left (maxmemory), and the session was not stored. Give it more, or look for keys without an expiry.',
  },
];

const TLS = /CERT|_TLS_|SSL_|^UNABLE_TO_|^EPROTO$/;

/** What an error of ioredis means; undefined when there was no reply, because the connection failed or dropped. */
export function explain(error: unknown): Failure | undefined {
  const { name, message, code, lastNodeError } = error as Error & { code?: string; lastNodeError?: Error };
  if (lastNodeError) return explain(lastNodeError);
  if (code !== undefined && TLS.test(code)) return { error: tlsError(code) };
  if (name === 'ReplyError') return explainReply(DRIVER, RULES, message) ?? unknownReply(DRIVER, 'Redis', message);
  return message.startsWith('All sentinels are unreachable') ? explainReply(DRIVER, RULES, message) : undefined;
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
