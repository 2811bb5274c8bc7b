import type { hash } from 'node:crypto';
import { toBase64url } from '../platform/base64url.ts';

/** Whether a value is a valid session id: 16 to 128 characters of `A-Z a-z 0-9 _ -`. */
export function isSessionId(id: unknown): id is string {
  return typeof id === 'string' && /^[\w-]{16,128}$/.test(id);
}

/**
 * Whether a value is an id as Astro and `createSessionId` create them: a UUID of version 4 in lowercase.
 *
 * When ids are used as keys without hashing, only these ids are valid. Otherwise a cookie could name any key of the backend to be read,
 * overwritten or removed. Uppercase is rejected because on a case-insensitive storage, one session would have several ids.
 */
export function isUuid(id: unknown): id is string {
  return typeof id === 'string' && /^[\da-f]{8}-[\da-f]{4}-4[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/.test(id);
}

/**
 * Creates a session id: a UUID of version 4, with 122 random bits. It is a UUID because Astro 7.3 accepts nothing else from a cookie, and a
 * site must accept the ids of an API that shares its sessions.
 */
export function createSessionId(): string {
  return crypto.randomUUID();
}

/**
 * The key of a session in the backend: the prefix, followed by the SHA-256 of the id in base64url. The id itself never leaves the process,
 * so nobody can take over a session with the contents of a leaked database.
 *
 * @param id the session id.
 * @param prefix the driver's `prefix` option. Default: `session:`.
 */
export async function recordKey(id: string, prefix = 'session:'): Promise<string> {
  const hash = hashes.get(id) ?? (await sha256Of(id));
  if (hashes.size > MAX_HASHES) hashes.clear();
  hashes.set(id, hash);
  return prefix + hash;
}

/** The hashes of recent session ids: a request that saves has read before, and hashing takes a fifth of an operation in memory. */
const hashes = new Map<string, string>();
const MAX_HASHES = 1000;

/** Resolves to the SHA-256 of a string (as UTF-8), in base64url without padding. */
export async function sha256Of(text: string): Promise<string> {
  nodeHash ??= globalThis.process?.getBuiltinModule?.('node:crypto')?.hash;
  if (nodeHash) return nodeHash('sha256', text, 'base64url');
  return toBase64url(new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text))));
}

// Node's own hash is ten times as fast as Web Crypto, because it does not leave the thread. It is loaded late, because loading takes
// milliseconds. Undefined: not loaded yet, or there is none.
let nodeHash: typeof hash | undefined;
