import {
  createError,
  explainBy,
  isSessionDriverError,
  type ErrorRule,
  type Failure,
} from '@coatcheck/session-core/driver';
import { BATCH_RULES } from '@coatcheck/session-core/sql';
import { DRIVER } from './options.ts';

// By the messages: of the server's errors, they begin with the code. An error that only writes get is `refused`: with `unavailable`, the
// circuit breaker would make reads fail as well.
const RULES: ErrorRule[] = [
  {
    pattern: /HTTP status 40[13]|^AUTH_|status: Unauthenticated/,
    code: 'configuration',
    message:
      'The server refuses the token. Correct LIBSQL_AUTH_TOKEN, TURSO_AUTH_TOKEN or `authToken`. A read-only token is not enough.',
  },
  {
    pattern: /HTTP status 404/,
    code: 'configuration',
    message: 'The server has no database at this URL. Correct LIBSQL_URL, TURSO_DATABASE_URL or `url`.',
  },
  {
    pattern: /^CLIENT_CLOSED/,
    code: 'configuration',
    message: 'The app has closed the client that it passed as `client`.',
  },
  {
    pattern: /HTTP status 30[1278]/,
    code: 'configuration',
    message:
      'The server sends its clients to another address, where the driver does not follow it. Set that address as `url`.',
  },
  {
    pattern: /^URL_SCHEME_NOT_SUPPORTED/,
    code: 'configuration',
    message: 'A file needs native code, which this runtime cannot load. Set `url` to that of a server.',
  },
  {
    pattern: /unable to open|not a database/i,
    code: 'configuration',
    message:
      'The file cannot be opened. It must be an SQLite database, or missing, in a directory that exists and that the process can read and write.',
  },
  {
    pattern: /readonly database/,
    code: 'refused',
    message:
      'The database is read-only, so nothing was stored. The process needs write permission for the file and for its directory.',
  },
  {
    // The database did not start the batch, or rolled it back.
    pattern: /SQLITE_BUSY|is locked|HTTP status 429/,
    code: 'refused',
    message: 'The database is busy, so nothing was stored. Does another transaction keep it locked?',
    transient: true,
  },
  {
    pattern: /^BLOCKED/,
    code: 'refused',
    message: 'The provider has blocked the database; the cause says why. A limit of the plan may be used up.',
  },
  {
    pattern: /SQLITE_FULL|is full|disk I\/O error/,
    code: 'refused',
    message: 'The disk of the database is full or broken, so nothing was stored.',
  },
  {
    pattern: /TOOBIG|too big|HTTP status 413/,
    code: 'invalid-data',
    message:
      'The session is larger than the server accepts. Nothing was stored. Store large values elsewhere, and only references to them in the session.',
  },
  {
    pattern: /unknown database/,
    code: 'configuration',
    message: 'The database has no schema with the name in `table`. Set `table` to a name without a dot.',
  },
  ...BATCH_RULES,
];

/** Matches the codes of connections that were never opened, and what an embedded replica says of them. */
const NOT_CONNECTED =
  /ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|CERT|_SSL_|_TLS_|EPROTO|UND_ERR_CONNECT_TIMEOUT|error trying to connect/;

/** Whether a statement failed because another process or another transaction has the lock. */
export function isLocked(error: unknown): boolean {
  return error instanceof Error && /SQLITE_BUSY|is locked/.test(error.message);
}

/**
 * What an error of the client means.
 *
 * @param isRepeatable whether the batch may be sent again if it is unknown whether the server has run it.
 */
export function explain(error: unknown, isRepeatable: boolean): Failure {
  if (isSessionDriverError(error)) return { error };
  const cause = withoutReply(error);
  // The name of the table follows, which could look like another error.
  if (cause.message.includes('no such table')) return { error: cause };
  const known = explainBy(DRIVER, RULES, cause.message, cause);
  if (known) return known;
  if (wasAnswered(cause)) return { error: cause };
  const reason = reasonOf(cause);
  const wasSent = !NOT_CONNECTED.test(reason);
  if (wasSent && !isRepeatable) {
    const message = 'The connection to libSQL broke during a write. It may have been stored; it is not sent again.';
    return { error: createError(DRIVER, 'interrupted', message, { cause }) };
  }
  const message = `libSQL cannot be reached: ${reason}.${wasSent ? '' : ' Nothing was sent.'} Is the server running, and can this machine connect to it?`;
  return { error: createError(DRIVER, 'unavailable', message, { cause }), transient: true };
}

/** The error without the text of an HTTP error: a proxy may quote the request in it, with the token and the values. */
function withoutReply(error: unknown): Error {
  if (!(error instanceof Error)) return new Error('The client failed with something that is not an error.');
  const [status] = /^.*?HTTP status \d+/s.exec(error.message) ?? [];
  return status === undefined ? error : Object.assign(new Error(status), { code: (error as { code?: unknown }).code });
}

/** Whether the database has run the batch and answered with an error of SQLite. An embedded replica passes on that of its primary. */
function wasAnswered({ message }: Error): boolean {
  return /^(?:SQL|RemoteSqliteFailure)|status: PermissionDenied/.test(message);
}

function reasonOf({ message, cause }: Error): string {
  const { code } = (cause ?? {}) as { code?: unknown };
  if (typeof code === 'string') return code;
  const [, ofReplica] = /^WriteDelegation\(.*? message: "(.*?)"/.exec(message) ?? [];
  return (ofReplica ?? message).replace(/\.$/, '');
}
