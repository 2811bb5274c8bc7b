/**
 * - `configuration`: an option or a variable is missing or wrong.
 * - `invalid-id`: a session id that could not have come from us was to be written.
 * - `invalid-data`: what was to be stored cannot be.
 * - `timeout`: the backend did not answer before the deadline. A write may or may not have been stored; it is not sent again.
 * - `interrupted`: the connection broke while a write was under way. It may or may not have been stored; it is not sent again.
 * - `unavailable`: the backend could not be reached. Nothing was stored.
 * - `refused`: the backend answered with an error.
 * - `committed`: a session was changed after `commit()`.
 */
export type SessionErrorCode =
  | 'configuration'
  | 'invalid-id'
  | 'invalid-data'
  | 'timeout'
  | 'interrupted'
  | 'unavailable'
  | 'refused'
  | 'committed';

/** What every rejection of a Coatcheck driver is. Its text, cause and stack never hold a session id, a value or a credential. */
export interface SessionDriverError extends Error {
  name: 'SessionDriverError';
  /** The package that speaks, such as `session-redis`. */
  driver: string;
  /** What was asked of the backend, such as `read`; undefined when nothing was. */
  operation?: string | undefined;
  code: SessionErrorCode;
}

export interface ErrorDetails {
  operation?: string | undefined;
  cause?: unknown;
}

/** The one way in which Coatcheck makes errors. `message` says what happened and what to do about it. */
export function createError(
  driver: string,
  code: SessionErrorCode,
  message: string,
  { operation, cause }: ErrorDetails = {},
): SessionDriverError {
  const error = new Error(`[${driver}] ${message}`, cause === undefined ? undefined : { cause: withoutSecrets(cause) });
  return Object.assign(error, { name: 'SessionDriverError' as const, driver, operation, code });
}

/** The same error once more. Anything that is no error becomes one. */
export function copyError(error: unknown): Error {
  if (!(error instanceof Error)) return new Error(String(error));
  const copy = new Error(error.message, { cause: error.cause });
  return Object.assign(copy, error, { name: error.name, stack: error.stack });
}

/** By shape, not by `instanceof`: several copies of this package in one process are normal. */
export function isSessionDriverError(error: unknown): error is SessionDriverError {
  return error instanceof Error && error.name === 'SessionDriverError';
}

/** Whether an operation that failed with this error may have been carried out. */
export function isAmbiguous(error: unknown): boolean {
  return !isSessionDriverError(error) || error.code === 'timeout' || error.code === 'interrupted';
}

// Clients hang commands, arguments and URLs on their errors: only the words and the code of a cause are kept. Redis quotes the
// arguments of a command that it does not know.
function withoutSecrets(cause: unknown): unknown {
  if (isSessionDriverError(cause)) return cause;
  if (!(cause instanceof Error)) return undefined;
  const { name, message, code } = cause as Error & { code?: unknown };
  const copy = Object.assign(new Error(message.replace(/,? with args.*$/s, '')), { name });
  copy.stack = `${name}: ${copy.message}`;
  return typeof code === 'string' ? Object.assign(copy, { code }) : copy;
}
