/**
 * Encodes a field as `<expires>:<body>`.
 *
 * @param expires the expiry in whole epoch milliseconds; undefined when the field has no expiry of its own.
 * @param body the canonical encoding of the value (see `flat.ts`).
 */
export function encodeField(expires: number | undefined, body: string): string {
  return `${expires ?? ''}:${body}`;
}

/**
 * The expiry of an encoded field, in epoch milliseconds; undefined when it has no expiry of its own, or when its expiry is corrupt. A store
 * needs this to decide how long a record lives.
 */
export function expiryOf(field: string): number | undefined {
  const expires = field.startsWith(':') ? NaN : Number(HEAD.exec(field)?.[1]);
  return Number.isFinite(expires) ? expires : undefined;
}

/** The canonical encoding of the value in an encoded field; an empty string when the field is corrupt. */
export function bodyOf(field: string): string {
  return field.startsWith(':') || HEAD.test(field) ? field.slice(field.indexOf(':') + 1) : '';
}

const HEAD = /^(-?\d+):/;

/** Whether a field counts for the expiry of its record. */
export function isCounted(field: string): boolean {
  return !field.startsWith('-:');
}

/** Whether an expiry has passed. As in Astro, an entry is still live in the very millisecond of its expiry. */
export function isExpired(expires: number | undefined, now: number): boolean {
  return expires !== undefined && expires < now;
}

/** The latest timestamp that a Date can represent. Later expiries are clamped to it. */
const MAX_TIMESTAMP = 8.64e15;

/**
 * The expiry, in whole epoch milliseconds, for anything that a writer may have stored as one. Undefined (the field does not expire) for
 * anything but a finite number. The exception is -Infinity, which has passed.
 */
export function normalizeExpiry(expires: unknown): number | undefined {
  if (expires === -Infinity) return 0;
  if (typeof expires !== 'number' || !Number.isFinite(expires)) return undefined;
  return Math.min(Math.max(Math.floor(expires), 0), MAX_TIMESTAMP);
}

/** The key under which the engine stores when a session was created, as `-:<epoch milliseconds>`. No session key is empty. */
export const CREATED_KEY = '';
/** The value of that field. */
export const createdAt = (now: number): string => `-:${now}`;
/** The name of that field, unless it is encrypted. */
export const CREATED_FIELD = '""';

/**
 * The field name for a session key. A session key may be any string, but backends accept only well-formed strings, and Postgres and some
 * SQLite clients accept no NUL. Such keys are stored as JSON strings. So are keys that start with `"` or `~`, because these mark a JSON
 * string or the name of an encrypted field, and the empty key, because no field name is empty.
 */
export function fieldName(key: string): string {
  return key.isWellFormed() && !/^$|^["~]|\0/.test(key) ? key : JSON.stringify(key);
}

/** The session key for a field name; undefined when the name is corrupt. */
export function keyOfField(name: string): string | undefined {
  if (!name.startsWith('"')) return name;
  try {
    const key = JSON.parse(name) as string;
    // A key has exactly one name: any other spelling of it is corrupt.
    return fieldName(key) === name ? key : undefined;
  } catch {
    return undefined;
  }
}
