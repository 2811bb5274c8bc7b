import { createError, type Failure, interrupted as interruptedOn, TLS_ERROR } from '@coatcheck/session-core/driver';
import { explainReply, unknownReply } from '@coatcheck/session-core/redis';
import { DRIVER } from './options.ts';

/** What an error of ioredis means. Undefined if Redis did not reply, because the connection failed or dropped. Never rejects. */
export async function explain(reason: unknown): Promise<Failure | undefined> {
  const { name, message, code, lastNodeError } = reason as Error & { code?: string; lastNodeError?: Error };
  if (lastNodeError) return explain(lastNodeError);
  if (code !== undefined && TLS_ERROR.test(code)) return { error: tlsError(code) };
  // node-redis gives its errors no name. Each reply of Redis starts with a code.
  const isReply = name === 'ReplyError' || /^[A-Z]{2,} /.test(message);
  if (!isReply && !message.startsWith('All sentinels are unreachable')) return undefined;
  // Without the module, the error is still passed on, as one that is not known.
  const { rules } = await import('./error-rules.ts').catch(() => ({ rules: [] }));
  const known = explainReply(DRIVER, rules, message);
  return known ?? (isReply ? unknownReply(DRIVER, 'Redis', message) : undefined);
}

/** Why there is no connection: the code of the operating system, such as `ECONNREFUSED`, or else the message of the error. */
export function reasonOf(error: unknown): string {
  const { code, message } = error as Error & { code?: unknown };
  return typeof code === 'string' ? code : message.replace(/\.$/, '');
}

/** The error for a write whose connection broke before the reply arrived. */
export function interrupted(): Error {
  return interruptedOn(DRIVER, 'Redis');
}

/**
 * The error for a command that got no connection before its deadline.
 *
 * @param address the address of Redis, from `describeTarget`.
 * @param reason why there is no connection, if that is known.
 * @param wasSent whether an earlier attempt was sent: a read whose connection broke, or a command that Redis refused.
 */
export function unreachable(address: string, reason: string = 'no answer', wasSent: boolean = false): Error {
  return createError(
    DRIVER,
    'unavailable',
    `Cannot connect to Redis at ${address}: ${reason}.${wasSent ? '' : ' Nothing was sent.'} Is Redis running there, and can this machine ` +
      `connect to it?`,
  );
}

function tlsError(code: string): Error {
  return createError(
    DRIVER,
    'configuration',
    `Cannot open a TLS connection to Redis (${code}). Does this port use TLS? For a certificate that Node does not trust, set \`tls.ca\`.`,
  );
}
