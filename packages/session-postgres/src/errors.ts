import { createError, isSessionDriverError, type SessionErrorCode } from '@coatcheck/session-core/driver';

export const DRIVER = 'session-postgres';

/** How to handle a statement that failed. */
export interface Failure {
  /** The error for the caller. */
  error: Error;
  /** Whether the cause may go away by itself. The statement had no effect, so it can be sent again. */
  transient?: boolean;
  /** Whether new connections may lead to a better server. */
  elsewhere?: boolean;
}

interface Rule {
  /** Matches the SQLSTATE. */
  state: RegExp;
  code: SessionErrorCode;
  message: string;
  transient?: boolean;
  elsewhere?: boolean;
}

// https://www.postgresql.org/docs/current/errcodes-appendix.html
// An error that only writes get is `refused`: with `unavailable`, the circuit breaker would make reads fail as well.
const RULES: Rule[] = [
  {
    state: /^28/,
    code: 'configuration',
    message:
      'PostgreSQL refuses the user or the password, or connections without TLS. Correct DATABASE_URL or `url`, or set `tls`.',
  },
  {
    state: /^3D000$/,
    code: 'configuration',
    message: 'PostgreSQL has no database with this name. Create it, or correct DATABASE_URL or `url`.',
  },
  {
    state: /^3F000$/,
    code: 'configuration',
    message: 'The database has no schema with the name in `table`. Create it, or correct `table`.',
  },
  {
    state: /^42501$/,
    code: 'configuration',
    message:
      'The user of PostgreSQL lacks privileges that sessions need, or may not create the missing table. The README of session-postgres ' +
      'lists the privileges.',
  },
  {
    state: /^57P03$/,
    code: 'unavailable',
    message: 'PostgreSQL is starting up or shutting down. Nothing was sent.',
    transient: true,
  },
  {
    state: /^53300$/,
    code: 'unavailable',
    message:
      'PostgreSQL has no connections left (max_connections). Nothing was sent. Lower `maxConnections`, or use a pooler such as PgBouncer.',
    transient: true,
  },
  {
    state: /^25006$/,
    code: 'refused',
    message:
      'This PostgreSQL accepts no writes. During a failover this is temporary. Otherwise, connect to the primary server.',
    transient: true,
    elsewhere: true,
  },
  {
    state: /^40(?:001|P01)$/,
    code: 'refused',
    message: 'PostgreSQL could not serialize this transaction with others, so nothing was stored.',
    transient: true,
  },
  { state: /^53100$/, code: 'refused', message: 'The disk of PostgreSQL is full, so nothing was stored.' },
  {
    state: /^57014$/,
    code: 'refused',
    message: 'PostgreSQL canceled the statement, so nothing was stored. Is `statement_timeout` too short?',
  },
  {
    state: /^55P03$/,
    code: 'refused',
    message: 'Another transaction has locked the table for longer than `lock_timeout`, so nothing was stored.',
  },
];

/** The SQLSTATE of an error that PostgreSQL answered with; undefined for other errors. Clients put it in the same property. */
export function sqlState(error: unknown): string | undefined {
  const { code } = (error ?? {}) as { code?: unknown };
  return !isSessionDriverError(error) &&
    typeof code === 'string' &&
    /^[0-9A-Z]{5}$/.test(code) &&
    !/^E[A-Z]{4}$/.test(code)
    ? code
    : undefined;
}

/**
 * What an error means. Undefined if PostgreSQL did not answer: the connection failed or dropped.
 *
 * @param isConnected whether a statement was sent. Without a connection, an error without a rule is one of a pooler.
 */
export function explain(error: unknown, isConnected: boolean): Failure | undefined {
  const state = sqlState(error);
  // The server ends the connection: it shuts down, it recovers from a crash, or an administrator ends the connection.
  if (state === undefined || /^(?:57P0[1245]|08)/.test(state)) return undefined;
  const rule = RULES.find((each) => each.state.test(state));
  if (!rule) return isConnected ? { error: withoutValues(error as Error, state) } : undefined;
  const { code, message, transient = false, elsewhere = false } = rule;
  return { error: createError(DRIVER, code, message, { cause: error }), transient, elsewhere };
}

/** The error of PostgreSQL, without its message if that may quote values: those about data, about constraints and of somebody's triggers. */
function withoutValues({ message }: Error, state: string): Error {
  const quotes = /^(?:22|23|P0)/.test(state);
  return Object.assign(new Error(`PostgreSQL: ${state}${quotes ? '' : `, ${message}`}`), { code: state });
}

/** The error for a write whose connection broke before the answer arrived. */
export function interrupted(cause: unknown): Error {
  return createError(
    DRIVER,
    'interrupted',
    'The connection to PostgreSQL broke during a write. It may have been stored; it is not sent again.',
    { cause },
  );
}

/** Matches the codes of Node's errors about certificates and TLS. */
const TLS = /CERT|_TLS_|SSL_|^UNABLE_TO_|^EPROTO$/;

/** The error for a statement that waited until its deadline for one of the connections. */
export function allBusy(maxConnections: number): Error {
  return createError(
    DRIVER,
    'unavailable',
    `All ${maxConnections} connections to PostgreSQL are busy (\`maxConnections\`). Nothing was sent. Does another transaction hold a lock on the table?`,
  );
}

/** What it means that there is no connection. Undefined if that may go away by itself. */
export function noConnection(address: string, cause: unknown): Failure | undefined {
  const { message } = cause as Error;
  const reason = reasonOf(cause);
  let explanation: string;
  if (message.startsWith('SASL: ')) {
    explanation = 'PostgreSQL wants a password. Add it to DATABASE_URL or `url`, or set PGPASSWORD.';
  } else if (TLS.test(reason) || /does not support SSL/.test(message)) {
    explanation = `Cannot open a TLS connection to PostgreSQL at ${address} (${reason}). For a certificate that Node does not trust, set \`tls.ca\`.`;
  } else return undefined;
  return { error: createError(DRIVER, 'configuration', explanation, { cause }) };
}

/** The error for a statement that got no connection. */
export function unreachable(address: string, cause: unknown): Error {
  if (isSessionDriverError(cause)) return cause;
  return createError(
    DRIVER,
    'unavailable',
    `Cannot connect to PostgreSQL at ${address}: ${reasonOf(cause)}. Nothing was sent. Is PostgreSQL running there, and can this machine connect to it?`,
    { cause },
  );
}

function reasonOf(cause: unknown): string {
  const { code, message } = cause as Error & { code?: unknown };
  // The message of PgBouncer says more than its code does.
  return typeof code === 'string' && !sqlState(cause) ? code : message.replace(/\.$/, '');
}
