import {
  createError,
  isSessionDriverError,
  explainBy,
  type ErrorRule,
  type Failure,
} from '@coatcheck/session-core/driver';
import { FILE_RULES, UNFIT_TABLE } from '@coatcheck/session-core/sql';
import { DRIVER } from './options.ts';

const CANNOT_OPEN =
  'The database cannot be opened. It must be a file in a directory that the process can read and write.';

// By the messages of SQLite and of Node.js: the clients have no other property in common. An error that only writes get is `refused`: with
// `unavailable`, the circuit breaker would make reads fail as well.
const RULES: ErrorRule[] = [
  {
    // `refused` and not `unavailable`: reads need no lock.
    pattern: /is locked|locking protocol|within a transaction/,
    code: 'refused',
    message:
      'Another process or transaction has locked the database, so nothing was stored. Does a backup or a migration keep a transaction open?',
    transient: true,
  },
  ...FILE_RULES,
  { pattern: /EMFILE|ENFILE/, code: 'refused', message: 'Too many files are open.' },
  {
    pattern: /unable to open|EACCES|EPERM|ENOTDIR|EEXIST|EROFS|EISDIR/,
    code: 'configuration',
    message: CANNOT_OPEN,
  },
  { pattern: /not a database/, code: 'configuration', message: 'The file is not an SQLite database.' },
  {
    pattern: /unknown database/,
    code: 'configuration',
    message:
      'The option `table` names a database that is not attached to `client`. With `file`, leave out the part before the dot.',
  },
  {
    pattern: /is not open|been finalized/,
    code: 'configuration',
    message: 'The app has closed the database that it passed as `client`.',
  },
  {
    pattern: UNFIT_TABLE,
    code: 'configuration',
    message:
      'The database has another table or index with this name, or the name is reserved. Set `table` to another name.',
  },
  {
    pattern: /malformed/,
    code: 'refused',
    message:
      'The database is corrupt. Restore a backup, or remove the file: the sessions are lost, and the driver creates a new one.',
  },
];

/** What an error means. One without a rule is passed on as it is. */
export function explain(error: unknown): Failure {
  if (isSessionDriverError(error)) return { error };
  return explainBy(DRIVER, RULES, messageOf(error), error) ?? { error: error as Error };
}

/** The error for a file that could not be opened. One that may go away by itself is passed on as it is. */
export function cannotOpen(error: unknown, path: string): unknown {
  const known = explainBy(DRIVER, RULES, messageOf(error), error);
  if (known?.transient) return error;
  const { code } = error as { code?: unknown };
  const reason = typeof code === 'string' && /^E[A-Z]+$/.test(code) ? ` (${code})` : '';
  const explained = known?.error ?? createError(DRIVER, 'configuration', CANNOT_OPEN, { cause: error });
  explained.message += ` The file is ${path}${reason}.`;
  return explained;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : '';
}
