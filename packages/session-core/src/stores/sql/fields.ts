import type { Fields } from '../../contract/store.ts';

// V8's JSON.parse can corrupt escaped names of properties (nodejs/node#63785), so names are written without JSON escapes.
// oxlint-disable-next-line no-control-regex -- these are what JSON escapes
const ESCAPED_BY_JSON = /[\\"%\u0000-\u001f]/g;
const ESCAPE = /%([0-9A-F]{2})/g;

/**
 * Packs the fields of a record into one JSON object, as all SQL drivers store them. In names, `%`, `"`, `\` and control characters are
 * percent-encoded.
 */
export function packFields(fields: Fields): string {
  const parts: string[] = [];
  for (const [name, value] of fields) parts.push(`"${packName(name)}":${JSON.stringify(value)}`);
  return `{${parts.join(',')}}`;
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

/** The name of a field in the JSON object. */
export function packName(name: string): string {
  return name.replace(
    ESCAPED_BY_JSON,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  );
}

function parse(packed: string): Record<string, unknown> {
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
