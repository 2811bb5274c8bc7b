import type { ErrorRule } from '../error-rules.ts';

/**
 * What errors of SQLite about its file mean, by their messages. All are errors of writes, so none is `unavailable`: the circuit breaker would
 * make reads fail as well.
 */
export const FILE_RULES: readonly ErrorRule[] = [
  {
    pattern: /SQLITE_FULL|disk is full|ENOSPC|EDQUOT/,
    code: 'refused',
    message: 'The disk is full, so nothing was stored. Reads still work. Free space on it.',
  },
  {
    pattern: /disk I\/O error/,
    code: 'refused',
    message: 'The disk reports an error, so nothing was stored. It may be full or broken.',
  },
  {
    pattern: /readonly database/,
    code: 'refused',
    message:
      'The database is read-only, so nothing was stored. The process needs write permission for the file and for its directory.',
  },
];
