import { createError } from '../../contract/errors.ts';
import { type ErrorRule, explainBy, type Failure } from '../error-rules.ts';

/** Errors about one stored session. They are the same on every Redis. */
const RECORD_RULES: ErrorRule[] = [
  {
    pattern: /\bWRONGTYPE\b/,
    code: 'refused',
    message:
      'The key of a session holds other data (WRONGTYPE), which was not changed. Remove the key, or give this site its own `prefix`.',
  },
  {
    pattern: /\bUNREADABLE\b/,
    code: 'refused',
    message: 'A stored session cannot be read: its header is corrupt, or a newer version of this driver wrote it.',
  },
];

/**
 * Finds out what an error reply of Redis means.
 *
 * @param driver the driver's name, for the error.
 * @param rules the driver's own rules. The first one that matches the reply counts.
 * @param reply the text of the reply.
 * @returns undefined when no rule matches.
 */
export function explainReply(driver: string, rules: readonly ErrorRule[], reply: string): Failure | undefined {
  return explainBy(driver, [...RECORD_RULES, ...rules], reply);
}

/**
 * The failure for an error reply without a rule. The reply is the cause of the error. `redisStore` needs this to find out that Redis does
 * not have a script.
 *
 * @param server the name of the server, for the message.
 */
export function unknownReply(driver: string, server: string, reply: string): Failure {
  const message = `${server} answered with an error. See the cause for the reason.`;
  return { error: createError(driver, 'refused', message, { cause: new Error(reply) }) };
}

/** The error about a stored session. */
export function errorOfRecord(driver: string, reply: 'WRONGTYPE' | 'UNREADABLE'): Error {
  return explainReply(driver, RECORD_RULES, reply)!.error;
}
