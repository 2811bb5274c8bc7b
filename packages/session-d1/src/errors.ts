import { createError, type ErrorRule, interrupted } from '@coatcheck/session-core/driver';
import type { BatchErrors } from '@coatcheck/session-core/sql';
import { DRIVER } from './options.ts';

// By the messages: D1's errors have no code. https://developers.cloudflare.com/d1/observability/debug-d1/#error-list
// An error that only writes get is `refused`: with `unavailable`, the circuit breaker would make reads fail as well.
const rules: ErrorRule[] = [
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
];

/** Matches errors after which it is unknown whether D1 has run the batch. */
const BROKEN =
  /Network connection lost|\breset\b|disconnected|transient issue|no longer active|internal error|timeout/i;

/** What the errors of D1 mean. */
export const d1Errors: BatchErrors = {
  rules,
  // If an answer is no JSON, the error of workerd quotes it.
  withoutQuotes: (message) => message.replace(/(\bgot:).*$/s, '$1 something else'),
  explainOther(cause, isRepeatable) {
    // With a code of SQLite, D1 has rolled the batch back.
    if (/SQLITE_[A-Z]/.test(cause.message) || (isRepeatable && !BROKEN.test(cause.message))) return { error: cause };
    if (!isRepeatable) return { error: interrupted(DRIVER, 'D1', cause) };
    const message = 'D1 did not answer. The cause says why.';
    return { error: createError(DRIVER, 'unavailable', message, { cause }), transient: true };
  },
};
