import { stringify, unflatten } from 'devalue';

// Astro adds URLs to devalue. A URL node refers to its string by position.
const reducers = { URL: (value: unknown) => value instanceof URL && value.href };
/** devalue's revivers for the types that Astro adds. */
const revivers: Record<string, (node: unknown) => unknown> = {
  URL(href: unknown) {
    // `new URL` converts its argument to a string. For a corrupt node, such as a list with a billion holes, that could take a minute.
    if (typeof href !== 'string') throw new TypeError('The URL is not a string.');
    return new URL(href);
  },
};

/**
 * Encodes a value canonically.
 *
 * @throws devalue's error when the value cannot be stored, such as a function.
 */
export function encodeValue(value: unknown): string {
  const text = stringify(value, reducers);
  // devalue escapes characters for HTML and does not escape lone surrogates. `JSON.stringify` does the opposite, so it gives the canonical
  // form.
  return text.includes('\\u') || !text.isWellFormed() ? JSON.stringify(JSON.parse(text)) : text;
}

/**
 * Decodes a canonical encoding. Every call returns a new value.
 *
 * @throws an error when the encoding is corrupt.
 */
export function decodeValue(body: string): unknown {
  return unflatten(JSON.parse(body), revivers);
}

/**
 * The canonical encoding of the value at position `root` in a larger flat array. Every value is decoded for it, so `extractValue` is faster.
 *
 * @throws an error when the value cannot be decoded.
 */
export function reencodeValue(flat: readonly unknown[], root: number): string {
  return encodeValue((unflatten([[root], ...flat.slice(1)], revivers) as [unknown])[0]);
}
