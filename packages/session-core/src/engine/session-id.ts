import { sha256 } from '@noble/hashes/sha2.js';
import { utf8ToBytes } from '@noble/hashes/utils.js';

import { toBase64url } from '../platform/base64url.ts';

/** Whether a text can be a session id: 16 to 128 characters of `A-Z a-z 0-9 _ -`. */
export function isSessionId(id: unknown): id is string {
  return typeof id === 'string' && /^[\w-]{16,128}$/.test(id);
}

/**
 * Whether a text is an id as Astro and `createSessionId` make them: a UUID of version 4 in lower case. Where an id is part of a name that
 * others could use for something else, only these are ids: otherwise a cookie would choose what is read, overwritten or removed. In another
 * case it would be another id of the same session on a storage that does not tell cases apart.
 */
export function isUuid(id: unknown): id is string {
  return typeof id === 'string' && /^[\da-f]{8}-[\da-f]{4}-4[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/.test(id);
}

/**
 * A new session id: a UUID of version 4, 122 random bits. Astro 7.3 takes nothing else out of a cookie, and an id that an API hands out
 * must be one that the site accepts.
 */
export function createSessionId(): string {
  return crypto.randomUUID();
}

/**
 * The key under which a session is stored: the prefix and the SHA-256 of the id, in base64url. The id itself never leaves the process,
 * so that a leaked database holds no usable session.
 *
 * @param prefix the driver's `prefix` option. Default: `session:`.
 */
export function recordKey(id: string, prefix = 'session:'): string {
  return prefix + sha256Of(id);
}

// Node's own is seven times as fast; the Web's is asynchronous.
const nodeHash = globalThis.process?.getBuiltinModule?.('node:crypto')?.hash;

/** The SHA-256 of a text as UTF-8, in base64url. */
export const sha256Of: (text: string) => string = nodeHash
  ? (text) => nodeHash('sha256', text, 'base64url')
  : portableSha256;

/** Exported to be compared with Node's. */
export function portableSha256(text: string): string {
  return toBase64url(sha256(utf8ToBytes(text)));
}
