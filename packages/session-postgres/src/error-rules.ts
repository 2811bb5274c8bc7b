import type { ErrorRule } from '@coatcheck/session-core/driver';

/**
 * What the errors of PostgreSQL mean, by their SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html
 *
 * An error that only writes get is `refused`. With `unavailable`, the circuit breaker would make reads fail as well.
 */
export const rules: readonly ErrorRule[] = [
  {
    pattern: /^28P01$/,
    code: 'configuration',
    message: 'PostgreSQL refuses the user or the password. Correct them in DATABASE_URL or `url`.',
  },
  {
    pattern: /^28/,
    code: 'configuration',
    message:
      'PostgreSQL refuses this user, this machine, or connections without TLS (pg_hba.conf). Correct DATABASE_URL or `url`, or set `tls`.',
  },
  {
    pattern: /^(?:42703|42809|42P07)$/,
    code: 'configuration',
    message: 'The database has another table or index with this name. Set `table` to another name.',
  },
  {
    pattern: /^3D000$/,
    code: 'configuration',
    message: 'PostgreSQL has no database with this name. Create it, or correct DATABASE_URL or `url`.',
  },
  {
    pattern: /^3F000$/,
    code: 'configuration',
    message:
      'The database has no schema with the name in `table`, or none of the `search_path` of its user. Create it, or correct `table`.',
  },
  {
    pattern: /^22(?:P05|021)$/,
    code: 'configuration',
    message:
      'The database cannot store this text, so nothing was stored. Its encoding must be UTF8, and `prefix` must not contain NUL.',
  },
  {
    pattern: /^42501$/,
    code: 'configuration',
    message:
      'The user of PostgreSQL lacks privileges that sessions need, or may not create the missing table. The README of session-postgres ' +
      'lists the privileges.',
  },
  {
    pattern: /^57P03$/,
    code: 'unavailable',
    message: 'PostgreSQL is starting up or shutting down. Nothing was sent.',
    transient: true,
  },
  {
    pattern: /^53300$/,
    code: 'unavailable',
    message:
      'PostgreSQL has no connections left (max_connections). Nothing was sent. Lower `maxConnections`, or use a pooler such as PgBouncer.',
    transient: true,
  },
  {
    pattern: /^25006$/,
    code: 'refused',
    message:
      'This PostgreSQL accepts no writes. During a failover this is temporary. Otherwise, connect to the primary server.',
    transient: true,
    elsewhere: true,
  },
  {
    pattern: /^40(?:001|P01)$/,
    code: 'refused',
    message: 'PostgreSQL could not serialize this transaction with others, so nothing was stored.',
    transient: true,
  },
  { pattern: /^53100$/, code: 'refused', message: 'The disk of PostgreSQL is full, so nothing was stored.' },
  {
    pattern: /^57014$/,
    code: 'refused',
    message: 'PostgreSQL canceled the statement, so nothing was stored. Is `statement_timeout` too short?',
  },
  {
    pattern: /^55P03$/,
    code: 'refused',
    message: 'Another transaction has locked the table for longer than `lock_timeout`, so nothing was stored.',
  },
];
