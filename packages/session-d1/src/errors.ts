import {
  createError,
  explainBy,
  isSessionDriverError,
  type ErrorRule,
  type Failure,
} from '@coatcheck/session-core/driver';
import { BATCH_RULES } from '@coatcheck/session-core/sql';

export const DRIVER = 'session-d1';

// By the messages: D1's errors have no code. https://developers.cloudflare.com/d1/observability/debug-d1/#error-list
// An error that only writes get is `refused`: with `unavailable`, the circuit breaker would make reads fail as well.
const RULES: ErrorRule[] = [
  {
    // D1 has not started what it rejects from its queue. Sending it again would make the queue longer.
    pattern: /overloaded|long-running export/,
    code: 'unavailable',
    message:
      'The D1 database is busy, so nothing was stored. It runs one query at a time. Are there slow queries, too many queries, or an export?',
  },
  {
    pattern: /daily .*limit/,
    code: 'refused',
    message:
      "The account has used up what D1's free plan allows in a day; the cause says what. Nothing was stored. The limit ends at midnight UTC; the " +
      'paid plan has no daily limit.',
  },
  {
    pattern: /maximum DB size|maximum account storage/,
    code: 'refused',
    message:
      'The D1 database, or the storage of the account, is full, so nothing was stored. Reads still work. Remove data, such as expired sessions ' +
      'with `sweep`.',
  },
  {
    pattern: /too big|SQLITE_TOOBIG/,
    code: 'invalid-data',
    message:
      'The session is larger than D1 accepts: a row has at most 2 MB. Nothing was stored. Store large values elsewhere, and only references to ' +
      'them in the session.',
  },
  {
    pattern: /Too many (?:API requests|subrequests)/,
    code: 'refused',
    message:
      'This request has sent as many queries to D1 as its plan allows (50 in the free plan), so this one was not sent.',
  },
  {
    pattern: /unknown database|not authorized/,
    code: 'configuration',
    message: 'D1 has no schemas, and reserves some names. Set `table` to another name, without a dot.',
  },
  ...BATCH_RULES,
];

/** Matches errors after which it is unknown whether D1 has run the batch. */
const BROKEN =
  /Network connection lost|\breset\b|disconnected|transient issue|no longer active|internal error|timeout/i;

/**
 * What an error of D1 means.
 *
 * @param isRepeatable whether the batch may be sent again if it is unknown whether D1 has run it.
 */
export function explain(error: unknown, isRepeatable: boolean): Failure {
  if (isSessionDriverError(error)) return { error };
  const cause = withoutReply(error);
  // The name of the table follows, which could look like another error.
  if (cause.message.includes('no such table')) return { error: cause };
  const known = explainBy(DRIVER, RULES, cause.message, cause);
  if (known) return known;
  // With a code of SQLite, D1 has rolled the batch back.
  if (/SQLITE_[A-Z]/.test(cause.message) || (isRepeatable && !BROKEN.test(cause.message))) return { error: cause };
  if (isRepeatable) {
    const message = 'D1 did not answer. The cause says why.';
    return { error: createError(DRIVER, 'unavailable', message, { cause }), transient: true };
  }
  const message = 'The connection to D1 broke during a write. It may have been stored; it is not sent again.';
  return { error: createError(DRIVER, 'interrupted', message, { cause }) };
}

/** The error without what D1 answered: if that is no JSON, the error of workerd quotes it. */
function withoutReply(error: unknown): Error {
  const { message } = error instanceof Error ? error : new Error(String(error));
  const [quoting] = /^.*?\bgot:/s.exec(message) ?? [];
  return quoting ? new Error(`${quoting} something else`) : error instanceof Error ? error : new Error(message);
}
