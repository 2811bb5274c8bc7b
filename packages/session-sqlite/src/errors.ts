import { createError, type SessionErrorCode } from '@coatcheck/session-core/driver';

export const DRIVER = 'session-sqlite';

interface Rule {
  pattern: RegExp;
  code: SessionErrorCode;
  message: string;
}

// SQLite's own messages. The clients have no other property in common. An error that only writes get is `refused`: with `unavailable`, the
// circuit breaker would make reads fail as well.
const RULES: Rule[] = [
  { pattern: /disk is full/, code: 'refused', message: 'The disk is full, so nothing was stored.' },
  {
    pattern: /readonly database/,
    code: 'refused',
    message:
      'The database cannot be written. The process needs write permission for the file and for its directory. If the file was moved or ' +
      'replaced while the server runs, restart the server.',
  },
  {
    pattern: /unable to open|EACCES|EPERM|ENOTDIR|EEXIST|EROFS|EISDIR/,
    code: 'configuration',
    message: 'The database cannot be opened. `file` must be in a directory that the process can read and write.',
  },
  { pattern: /not a database/, code: 'configuration', message: '`file` is not an SQLite database.' },
  {
    pattern: /malformed/,
    code: 'refused',
    message:
      'The database is corrupt. Restore a backup, or remove the file: the sessions are lost, and the server creates a new one.',
  },
];

/** Whether a statement failed because another process or another transaction has the lock. */
export function isLocked(error: unknown): boolean {
  return /is locked|within a transaction/.test((error as Error).message);
}

/** The error for a statement that failed. An error without a rule is returned as it is. */
export function explain(error: unknown): unknown {
  const { message } = error as Error;
  const rule = RULES.find(({ pattern }) => pattern.test(message));
  return rule ? createError(DRIVER, rule.code, rule.message, { cause: error }) : error;
}
