import { createError, type ErrorRule, interrupted } from '@coatcheck/session-core/driver';
import { type BatchErrors, FILE_RULES } from '@coatcheck/session-core/sql';
import { DRIVER } from './options.ts';

// By the messages: of the server's errors, they begin with the code. An error that only writes get is `refused`: with `unavailable`, the
// circuit breaker would make reads fail as well.
const rules: ErrorRule[] = [
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
  ...FILE_RULES,
];

/** Matches the codes of connections that were never opened, and what an embedded replica says of them. */
const NOT_CONNECTED =
  /ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|CERT|_SSL_|_TLS_|EPROTO|UND_ERR_CONNECT_TIMEOUT|error trying to connect/;

/** What the errors of the client mean. */
export const libsqlErrors: BatchErrors = {
  rules,
  // A proxy may quote the request in the text of an HTTP error.
  withoutQuotes: (message) => message.replace(/(HTTP status \d+).*$/s, '$1'),
  explainOther(cause, isRepeatable) {
    if (wasAnswered(cause)) return { error: cause };
    const reason = reasonOf(cause);
    const wasSent = !NOT_CONNECTED.test(reason);
    if (wasSent && !isRepeatable) return { error: interrupted(DRIVER, 'libSQL', cause) };
    const message = `libSQL cannot be reached: ${reason}.${wasSent ? '' : ' Nothing was sent.'} Is the server running, and can this machine connect to it?`;
    return { error: createError(DRIVER, 'unavailable', message, { cause }), transient: true };
  },
};

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
