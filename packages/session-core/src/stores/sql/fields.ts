import type { Fields } from '../../contract/store.ts';

// V8's JSON.parse can corrupt escaped names of properties (nodejs/node#63785), so names are written without JSON escapes.
// The second part matches control characters, which come before the space.
const ESCAPED_BY_JSON = /[\\"%]|[^ -\uFFFF]/;
const ESCAPE = /%([0-9A-F]{2})/g;

/**
 * Packs the fields of a record into one JSON object, as all SQL drivers store them. In names, `%`, `"`, `\` and control characters are
 * percent-encoded.
 */
export function packFields(fields: ReadonlyMap<string, string | null>): string {
  // Without a prototype, `__proto__` is a name like any other.
  const object = Object.create(null) as Record<string, string | null>;
  for (const [name, value] of fields) object[packName(name)] = value;
  return JSON.stringify(object);
}

/**
 * Unpacks the fields of a record.
 *
 * @throws an error when the text is not an object of strings. A corrupt record is an error and never counts as a missing one.
 */
export function unpackFields(packed: string): Fields {
  const fields: Fields = new Map();
  for (const [name, value] of Object.entries(parse(packed))) {
    if (typeof value !== 'string') throw unreadable();
    fields.set(
      name.includes('%') ? name.replace(ESCAPE, (_, hex: string) => String.fromCharCode(parseInt(hex, 16))) : name,
      value,
    );
  }
  return fields;
}

/** Unpacks the fields of a record that is destroyed. Null if they are corrupt, so that its user can sign out. */
export function unpackDestroyed(packed: string): Fields | null {
  try {
    return unpackFields(packed);
  } catch {
    return null;
  }
}

/** The name of a field in the JSON object. */
export function packName(name: string): string {
  if (!ESCAPED_BY_JSON.test(name)) return name;
  return name.replace(
    new RegExp(ESCAPED_BY_JSON, 'g'),
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  );
}

function parse(packed: string): Record<string, unknown> {
  // `Object.entries` would also take a list or a string for a record.
  if (!packed.startsWith('{')) throw unreadable();
  try {
    return JSON.parse(packed) as Record<string, unknown>;
  } catch {
    // The error of JSON.parse quotes the text.
    throw unreadable();
  }
}

function unreadable(): Error {
  return new Error('The stored record is corrupt, or a newer version wrote it.');
}
