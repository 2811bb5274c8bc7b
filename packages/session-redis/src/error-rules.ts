import type { ErrorRule } from '@coatcheck/session-core/driver';

/**
 * What the error replies of Redis mean. Loaded with the first of them.
 *
 * An error that only writes get is `refused`. With `unavailable`, the circuit breaker would make reads fail as well.
 */
export const rules: readonly ErrorRule[] = [
  {
    pattern: /All sentinels are unreachable.*(WRONGPASS|NOAUTH|invalid password)/,
    code: 'configuration',
    message: 'The Sentinels refuse the password, or require one. Correct `sentinel.username` and `sentinel.password`.',
  },
  {
    pattern: /No such master/,
    code: 'configuration',
    message: 'The Sentinels do not know a group with this name. Correct `sentinel.name`.',
  },
  { pattern: /\bLOADING\b/, code: 'unavailable', message: 'Redis is still loading its data.', transient: true },
  {
    pattern: /\bREADONLY\b|\bNOTMASTER\b/,
    code: 'refused',
    message:
      'This Redis is a replica and accepts no writes. During a failover this is temporary. Otherwise, connect to the master.',
    transient: true,
    elsewhere: true,
  },
  {
    pattern: /\bMASTERDOWN\b/,
    code: 'unavailable',
    message: 'This Redis is a replica that has lost the connection to its master.',
    transient: true,
    elsewhere: true,
  },
  {
    pattern: /\b(CLUSTERDOWN|TRYAGAIN)\b/,
    code: 'refused',
    message: 'The cluster cannot serve all keys at the moment.',
    transient: true,
  },
  { pattern: /\bBUSY\b/, code: 'unavailable', message: 'Redis is busy running a script.', transient: true },
  {
    pattern: /\bNOREPLICAS\b/,
    code: 'refused',
    message: 'Redis has too few replicas to accept writes (min-replicas-to-write).',
    transient: true,
  },
  {
    pattern: /max number of clients/,
    code: 'unavailable',
    message: 'Redis has no connections left (maxclients).',
    transient: true,
  },
  {
    pattern: /\bWRONGPASS\b|invalid password/i,
    code: 'configuration',
    message:
      'Redis refuses the password or the username. Correct them in `url` or REDIS_URL, or in `username` and `password`.',
  },
  {
    pattern: /\bNOAUTH\b/,
    code: 'configuration',
    message: 'Redis requires a password. Put it into `url` or REDIS_URL (redis://:password@host), or pass `password`.',
  },
  {
    pattern: /arguments for 'auth'/,
    code: 'configuration',
    message:
      'This Redis does not support usernames. Leave out the username: redis://:password@host, or only `password`.',
  },
  {
    pattern: /DB index|SELECT is not allowed/,
    code: 'configuration',
    message:
      'Redis has no database with this number. Correct the number at the end of the URL, or `db`. A cluster has only 0.',
  },
  {
    pattern: /\bNOPERM\b/,
    code: 'configuration',
    message:
      'The Redis user lacks permissions that sessions need. The README of session-redis shows an ACL that has them.',
  },
  {
    pattern: /\bMOVED\b/,
    code: 'configuration',
    message: 'This Redis is part of a cluster. Use the option `cluster` instead of `url` or `host`.',
  },
  {
    pattern: /cluster support disabled/,
    code: 'configuration',
    message: 'This Redis is not a cluster. Use the option `url` or `host` instead of `cluster`.',
  },
  {
    pattern: /\bOOM\b/,
    code: 'refused',
    message:
      'Redis has no memory left (maxmemory), and the session was not stored. Raise the limit, or look for keys without an expiry.',
  },
];
