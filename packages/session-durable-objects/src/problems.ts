import {
  createError,
  explainBy,
  isSessionDriverError,
  missingBinding,
  type ErrorRule,
} from '@coatcheck/session-core/driver';

// Errors that say what to do. Loaded with the first of them.

export const DRIVER = 'session-durable-objects';

// By the messages of Cloudflare, of `record.ts` and of `store.ts`: most of these errors have no other property. Each rule is for an error
// after which nothing was stored. None is `unavailable`: it would open the circuit breaker, and the objects of other sessions may be well.
const RULES: ErrorRule[] = [
  {
    pattern: /^overloaded$/,
    code: 'refused',
    message:
      'The Durable Object of this session gets more requests than it can handle, so this one was not executed. Use the session in fewer ' +
      'requests at once.',
  },
  {
    pattern: /session is too large|limited to 32MiB/,
    code: 'invalid-data',
    message:
      'The session is larger than a Durable Object can store: 2 MB, in which each character counts twice if any of them is not in Latin-1. ' +
      'Nothing was stored. Store large values elsewhere, and only references to them in the session.',
  },
  {
    pattern: /record is corrupt/,
    code: 'refused',
    message: 'The stored session is corrupt, or a newer version wrote it. It was not changed. It can be destroyed.',
  },
  {
    pattern: /is of another version/,
    code: 'refused',
    message:
      'The Worker and its Durable Objects run different versions of this package. Deploy both with the same version.',
  },
  {
    pattern: /does not implement the method|does not support RPC/,
    code: 'configuration',
    message:
      'The Durable Object class of the binding is not `CoatcheckSession`. Export that class from the entry module of the Worker, and name it ' +
      'in `class_name` of the binding.',
  },
  {
    pattern: /only available for SQLite-backed/,
    code: 'configuration',
    message:
      'The Durable Object class has no SQLite storage. Name it in `new_sqlite_classes` of its migration, not in `new_classes`. A class that ' +
      'is deployed already cannot be changed: add another one, such as `export { CoatcheckSession as Sessions }`.',
  },
  {
    pattern: /free tier|limit exceeded/i,
    code: 'refused',
    message:
      "The daily limit of the account's plan for Durable Objects is used up; the cause says which. Nothing was stored. It ends at midnight " +
      'UTC; a larger plan has none.',
  },
];

/** What an error of a read means. A read that Cloudflare calls `retryable` is sent again. */
export function judgeRead(error: unknown): { error: unknown; transient?: boolean } {
  const known = explain(error);
  if (known) return { error: known };
  if ((error as { retryable?: unknown }).retryable !== true) return { error };
  // Not `refused`, which counts as an answer of the backend. Not `unavailable`, as in `RULES`.
  return { error: interrupted(error, '. The read was sent again, without success.'), transient: true };
}

/**
 * What an error of a write means. No write is sent again, not even one that Cloudflare calls `retryable`: it may have been executed, and
 * a later write of another request would be overwritten. Cloudflare repeats by itself what has not reached the object.
 */
export function explainWrite(error: unknown): unknown {
  // An object of a newer version has executed the request.
  const wasAnswered = error instanceof Error && error.message.startsWith('The answer');
  const known = wasAnswered ? undefined : explain(error);
  return known ?? interrupted(error, ', during a write. It may have been stored; it is not sent again.');
}

function explain(error: unknown): Error | undefined {
  if (isSessionDriverError(error)) return error;
  const { overloaded, message } = error as { overloaded?: unknown; message?: unknown };
  return explainBy(DRIVER, RULES, overloaded === true ? 'overloaded' : String(message), error)?.error;
}

function interrupted(cause: unknown, consequence: string): Error {
  const message = `The Durable Object of this session failed, or the connection to it broke${consequence}`;
  return createError(DRIVER, 'interrupted', message, { cause });
}

/** The error for a binding that is missing, or that is something else. */
export function noNamespace(env: Record<string, unknown> | undefined, name: string): Error {
  return missingBinding(env, name, {
    driver: DRIVER,
    kind: 'Durable Object namespace',
    option: 'namespace',
    setup:
      'Add this to wrangler.jsonc:\n\n' +
      `  "durable_objects": { "bindings": [{ "name": "${name}", "class_name": "CoatcheckSession" }] },\n` +
      '  "migrations": [{ "tag": "coatcheck-1", "new_sqlite_classes": ["CoatcheckSession"] }]\n\n' +
      'and this to the module that it names as `main`:\n\n' +
      "  export { CoatcheckSession } from '@coatcheck/session-durable-objects/object';",
  });
}

/** The error for a namespace that gives no object. */
export function wrongPlace(cause: unknown): Error {
  return createError(
    DRIVER,
    'configuration',
    'Cloudflare does not accept the option `jurisdiction` or `locationHint`. See the cause.',
    { cause },
  );
}
