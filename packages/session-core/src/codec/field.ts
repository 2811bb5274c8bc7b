/**
 * An encoded field is `<expires>:<body>`: the expiry in whole epoch milliseconds or nothing, a colon, and the value's canonical
 * encoding (`flat.ts`).
 */
export function encodeField(expires: number | undefined, body: string): string {
  return `${expires ?? ''}:${body}`;
}

/** When an encoded field expires, in epoch milliseconds; undefined when it has no expiry of its own, or none that can be read. */
export function expiryOf(field: string): number | undefined {
  const expires = field.startsWith(':') ? NaN : Number(HEAD.exec(field)?.[1]);
  return Number.isFinite(expires) ? expires : undefined;
}

/** The canonical encoding in an encoded field; '' when the field is corrupt. */
export function bodyOf(field: string): string {
  if (field.startsWith(':')) return field.slice(1);
  return HEAD.test(field) ? field.slice(field.indexOf(':') + 1) : '';
}

const HEAD = /^(-?\d+):/;

/** Astro's rule: an entry lives through the millisecond that it names. */
export function isExpired(expires: number | undefined, now: number): boolean {
  return expires !== undefined && expires < now;
}

/** The latest moment that a Date can hold: what an absurdly long lifetime is clamped to. */
const LATEST = 8.64e15;

/** Anything that a writer may have stored as an expiry: not a finite number means never, except -Infinity, which is past. */
export function normalizeExpiry(expires: unknown): number | undefined {
  if (expires === -Infinity) return 0;
  if (typeof expires !== 'number' || !Number.isFinite(expires)) return undefined;
  return Math.min(Math.max(Math.floor(expires), 0), LATEST);
}

// Backends take well-formed text only, and Postgres and some clients of SQLite no NUL in it, while a session key may hold anything: such
// a key is stored as its JSON text, and so is one that begins like JSON text, or like the name of a encrypted field.
export function fieldName(key: string): string {
  return key.isWellFormed() && !/^["~]|\0/.test(key) ? key : JSON.stringify(key);
}

/** The session key that a field stands for, or undefined when the name is corrupt. */
export function keyOfField(name: string): string | undefined {
  if (!name.startsWith('"')) return name;
  try {
    const key = JSON.parse(name) as string;
    // Two names must not stand for one key.
    return fieldName(key) === name ? key : undefined;
  } catch {
    return undefined;
  }
}
