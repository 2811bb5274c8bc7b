import { createError, type SessionErrorCode } from '../contract/errors.ts';

/** How to handle an operation that failed. */
export interface Failure {
  /** The error for the caller. */
  error: Error;
  /** Whether the cause may go away by itself, so that the command can be sent again. */
  transient?: boolean;
  /** Whether the command may have been executed despite the error. */
  ambiguous?: boolean;
  /** Whether this connection leads to the wrong server, so that another one is needed. */
  elsewhere?: boolean;
}

/** What an error of a backend means. */
export interface ErrorRule extends Omit<Failure, 'error'> {
  /** Matches the text that identifies the error: its message, or its code. */
  pattern: RegExp;
  /** The code of the error. `unavailable` opens the circuit breaker. So for an error that only writes get, use `refused`. */
  code: SessionErrorCode;
  /** The message of the error: what was wrong, and what to do about it. */
  message: string;
}

/**
 * Finds out what an error of a backend means.
 *
 * @param driver the driver's name, for the error.
 * @param rules the first one that matches counts.
 * @param text what identifies the error.
 * @param cause the original error, if its message contains no session data.
 * @returns undefined when no rule matches.
 */
export function explainBy(
  driver: string,
  rules: readonly ErrorRule[],
  text: string,
  cause?: unknown,
): Failure | undefined {
  const rule = rules.find(({ pattern }) => pattern.test(text));
  if (!rule) return undefined;
  const { pattern: _, code, message, ...handling } = rule;
  return { error: createError(driver, code, message, { cause }), ...handling };
}

/** Matches the codes of Node's errors about certificates and TLS. */
export const TLS_ERROR: RegExp = /CERT|_TLS_|SSL_|^UNABLE_TO_|^EPROTO$/;

/** The error for a write whose connection broke before the answer arrived. */
export function interrupted(driver: string, backend: string, cause?: unknown): Error {
  const message = `The connection to ${backend} broke during a write. It may have been stored; it is not sent again.`;
  return createError(driver, 'interrupted', message, { cause });
}
