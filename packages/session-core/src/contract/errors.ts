/**
 * The reason for a `SessionDriverError`:
 *
 * - `configuration`: an option or an environment variable is missing or wrong.
 * - `invalid-id`: a write used a string that is not a session id.
 * - `invalid-data`: a value or a session key cannot be stored.
 * - `timeout`: the backend did not answer before the deadline. The outcome of a write is unknown; it is not retried.
 * - `interrupted`: the connection broke during the operation. The outcome of a write is unknown; it is not retried.
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

/** Every error of a Coatcheck driver. Its message, cause and stack never contain a session id, a value or a credential. */
export interface SessionDriverError extends Error {
  name: 'SessionDriverError';
  /** The driver's name, such as `session-redis`. */
  driver: string;
  /** The operation on the backend that failed, such as `read`; undefined when the error is not about an operation. */
  operation?: string | undefined;
  /** The reason, for programs. */
  code: SessionErrorCode;
}

/** Optional details of a new error. */
export interface ErrorDetails {
  /** The operation that failed. */
  operation?: string | undefined;
  /**
   * The original error. A `SessionDriverError` is kept as it is. Of other errors, only the name, message and `code` are kept. Anything else
   * is dropped.
   */
  cause?: unknown;
}

/**
 * Creates a `SessionDriverError`. All errors of Coatcheck are created here.
 *
 * @param driver the driver's name. The error's message starts with it, in brackets.
 * @param message what was wrong, and what to do about it. Must not contain a session id, a value or a credential.
 */
export function createError(
  driver: string,
  code: SessionErrorCode,
  message: string,
  { operation, cause }: ErrorDetails = {},
): SessionDriverError {
  const error = new Error(`[${driver}] ${message}`, cause === undefined ? undefined : { cause: withoutSecrets(cause) });
  return Object.assign(error, { name: 'SessionDriverError' as const, driver, operation, code });
}

/** Copies an error, with its properties and stack. A value that is not an Error becomes one with that value as its message. */
export function copyError(error: unknown): Error {
  if (!(error instanceof Error)) return new Error(String(error));
  const copy = new Error(error.message, { cause: error.cause });
  return Object.assign(copy, error, { name: error.name, stack: error.stack });
}

/**
 * Whether a value is an error of a Coatcheck driver. It checks the name and not the class, because one process may contain several copies
 * of this package.
 */
export function isSessionDriverError(error: unknown): error is SessionDriverError {
  return error instanceof Error && error.name === 'SessionDriverError';
}

/** The error for a driver, or a part of it, that could not be loaded. */
export function notLoaded(driver: string, cause: unknown): SessionDriverError {
  const message =
    'The driver could not be loaded, so nothing was sent; the cause says why. If this stays so, restart the server: Node.js does not load ' +
    'some modules again after a failure.';
  return createError(driver, 'unavailable', message, { cause });
}

/** Whether the outcome of an operation that failed with this error is unknown: the backend may have carried it out. */
export function isAmbiguous(error: unknown): boolean {
  return !isSessionDriverError(error) || error.code === 'timeout' || error.code === 'interrupted';
}

// Clients attach commands, arguments and URLs to their errors. So only the name, the message and the code of a cause are kept. Arguments
// are cut from the message, because Redis quotes those of a command that it does not know.
function withoutSecrets(cause: unknown): unknown {
  if (isSessionDriverError(cause)) return cause;
  if (!(cause instanceof Error)) return undefined;
  const { name, message, code } = cause as Error & { code?: unknown };
  const copy = Object.assign(new Error(message.replace(/,? with args.*$/s, '')), { name });
  copy.stack = `${name}: ${copy.message}`;
  return typeof code === 'string' ? Object.assign(copy, { code }) : copy;
}
