import { createError, type Failure, TLS_ERROR } from '@coatcheck/session-core/driver';
import { explainReply, unknownReply } from '@coatcheck/session-core/redis';
import { DRIVER } from './options.ts';

/** Errors from before a request is sent, when there is no connection yet. Node, Bun and Deno each have their own texts. */
const NOT_CONNECTED =
  /ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|UND_ERR_CONNECT_TIMEOUT|ConnectionRefused|client error \(Connect\)/;

/**
 * What an error of the client means. Never rejects. The client's messages quote commands and replies, which contain session data, so only
 * error messages of Redis itself are passed on.
 */
export async function explain(error: unknown): Promise<Failure> {
  const { name, message } = error as Error;
  if (name === 'UpstashError') return explainText(message.replace(/, command was: .*$/s, ''));
  if (name === 'UpstashJSONParseError') {
    const page = message.replace('Unable to parse response body: ', '');
    // The page of a gateway may contain an error text. A part of a JSON reply must not be searched for one, because it can contain session
    // data.
    return page.startsWith('{') ? unusableReply() : explainText(page);
  }
  return connectionError(error as Error);
}

async function explainText(text: string): Promise<Failure> {
  // Without the module, the error is still passed on, as one that is not known.
  const { rules } = await import('./error-rules.ts').catch(() => ({ rules: [] }));
  const known = explainReply(DRIVER, rules, text);
  if (known) return known;
  const isFromRedis = /^[A-Z]{2,} /.test(text) && !/\b(internal|unavailable|timed? ?out)\b/i.test(text);
  return isFromRedis ? unknownReply(DRIVER, 'Upstash', text) : unusableReply();
}

function connectionError(error: Error): Failure {
  const { code } = ((error.cause as Error | undefined) ?? error) as { code?: unknown };
  const reason = typeof code === 'string' ? code : '';
  if (TLS_ERROR.test(reason)) {
    return {
      error: createError(
        DRIVER,
        'configuration',
        `Cannot open a TLS connection to Upstash (${reason}). Is \`url\` correct?`,
      ),
    };
  }
  return {
    error: createError(
      DRIVER,
      'unavailable',
      `Upstash could not be reached${reason && ` (${reason})`}. Is \`url\` or UPSTASH_REDIS_REST_URL correct, and does the database still exist?`,
    ),
    transient: true,
    ambiguous: !NOT_CONNECTED.test(`${reason} ${error.message}`),
  };
}

/** What it means that a reply is broken, or that did not come from Redis. */
export function unusableReply(): Failure {
  return {
    error: createError(
      DRIVER,
      'unavailable',
      'The replies are broken or not from Upstash: a gateway in between may be failing. Is `url` the REST URL of the database?',
    ),
    transient: true,
    ambiguous: true,
  };
}

/** The error for a write that got no usable reply. */
export function interrupted(): Error {
  return createError(
    DRIVER,
    'interrupted',
    'A write got no usable reply: the connection broke, or Upstash failed. It may have been stored; it is not sent again.',
  );
}

/** The error for a command that was not sent before its signal aborted. */
export function notSent(): Error {
  return createError(DRIVER, 'unavailable', 'Upstash could not be reached in time; nothing was sent.');
}
