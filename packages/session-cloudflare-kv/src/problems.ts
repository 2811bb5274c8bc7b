import { createError, missingBinding } from '@coatcheck/session-core/driver';

// Errors that say what to do. Loaded with the first of them.

export function noNamespace(env: Record<string, unknown> | undefined, name: string): Error {
  return missingBinding(env, name, {
    driver: 'session-cloudflare-kv',
    kind: 'KV namespace',
    option: 'namespace',
    setup:
      `Run\n\n  npx wrangler kv namespace create ${name}\n\n` +
      'and add this to wrangler.jsonc, with the id that the command prints:\n\n' +
      `  "kv_namespaces": [{ "binding": "${name}", "id": "<id>" }]`,
  });
}

export function bothGiven(): Error {
  return createError('session-cloudflare-kv', 'configuration', 'Set `namespace` or `client`, not both.');
}

export function quotaExceeded(cause: unknown): Error {
  return createError(
    'session-cloudflare-kv',
    'refused',
    "The KV quota of the account's plan is used up; the cause says which. Nothing was stored. A daily limit ends at midnight UTC; a larger " +
      'plan has a higher one.',
    { cause },
  );
}

export function tooManyWrites(cause: unknown): Error {
  return createError(
    'session-cloudflare-kv',
    'refused',
    'KV accepts one write per second to a key, and this session is written more often: KV answered 429 until the deadline. Nothing was ' +
      'stored. Write to the session less often, or use a backend that accepts more writes.',
    { cause },
  );
}

/** The error for a session of this many bytes. KV takes `maxBytes`. */
export function tooLarge(bytes: number, maxBytes: number): Error {
  return createError(
    'session-cloudflare-kv',
    'invalid-data',
    `The session takes ${bytes} bytes, and a value in KV has at most ${maxBytes} (25 MiB). Nothing was stored. Store large ` +
      'values elsewhere, and only references to them in the session.',
  );
}
