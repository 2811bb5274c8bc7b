import { createError, isSessionDriverError, explainBy, type Failure, TLS_ERROR } from '@coatcheck/session-core/driver';
import { rules } from './error-rules.ts';
import { DRIVER } from './options.ts';

/** The SQLSTATE of an error that PostgreSQL answered with; undefined for other errors. Clients put it in the same property. */
export function sqlState(error: unknown): string | undefined {
  const { code } = (error ?? {}) as { code?: unknown };
  // Node's codes, such as EPIPE, and those of this driver have other forms.
  return typeof code === 'string' && /^(?!E[A-Z]{4})[0-9A-Z]{5}$/.test(code) ? code : undefined;
}

/** Whether PostgreSQL answered with an error, and keeps the connection open. */
export function isAnswer(error: unknown): boolean {
  const state = sqlState(error);
  // The server ends the connection: it shuts down, it recovers from a crash, or an administrator ends the connection.
  return state !== undefined && !/^(?:57P0[1245]|08)/.test(state);
}

/**
 * What an error means. Undefined if PostgreSQL did not answer: the connection failed or dropped.
 *
 * @param isConnected whether a statement was sent. Without a connection, an error without a rule is one of a pooler.
 */
export function explain(reason: unknown, isConnected: boolean): Failure | undefined {
  if (!isAnswer(reason)) return undefined;
  const state = sqlState(reason)!;
  const known = explainBy(DRIVER, rules, state, reason);
  return known ?? (isConnected ? { error: withoutValues(reason as Error, state) } : undefined);
}

/** The error of PostgreSQL, without its message if that may quote values: those about data, about constraints and of somebody's triggers. */
function withoutValues({ message }: Error, state: string): Error {
  const quotes = /^(?:22|23|P0)/.test(state);
  return Object.assign(new Error(`PostgreSQL: ${state}${quotes ? '' : `, ${message}`}`), { code: state });
}

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
  const message = messageOf(cause);
  const reason = reasonOf(cause);
  let explanation: string;
  if (message.startsWith('SASL: ')) {
    explanation = 'PostgreSQL wants a password. Add it to DATABASE_URL or `url`, or set PGPASSWORD.';
  } else if (/does not support SSL/.test(message)) {
    explanation = `PostgreSQL at ${address} does not support TLS. Turn on \`ssl\` in PostgreSQL, or leave out \`sslmode\` and \`tls\`.`;
  } else if (TLS_ERROR.test(reason)) {
    explanation = `Cannot open a TLS connection to PostgreSQL at ${address} (${reason}). For a certificate that Node does not trust, set \`tls.ca\`.`;
  } else if (sqlState(cause)?.startsWith('42')) {
    explanation = `PostgreSQL refuses the settings of the connection: ${message}. Correct \`options\` in DATABASE_URL or \`url\`, or PGOPTIONS.`;
  } else return undefined;
  return { error: createError(DRIVER, 'configuration', explanation, { cause }) };
}

/**
 * The error for a statement that got no connection.
 *
 * @param wasSent whether it was sent before: a read whose connection broke.
 */
export function unreachable(address: string, cause: unknown, wasSent: boolean): Error {
  if (isSessionDriverError(cause)) return cause;
  return createError(
    DRIVER,
    'unavailable',
    `Cannot connect to PostgreSQL at ${address}: ${reasonOf(cause)}.${wasSent ? '' : ' Nothing was sent.'} Is PostgreSQL running there, and can this machine connect to it?`,
    { cause },
  );
}

function reasonOf(cause: unknown): string {
  const { code } = (cause ?? {}) as { code?: unknown };
  // The message of PgBouncer says more than its code does.
  return typeof code === 'string' && !sqlState(cause) ? code : messageOf(cause).replace(/\.$/, '');
}

/** The message of anything that a client may throw. */
function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
