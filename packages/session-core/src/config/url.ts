/** Parses a URL. Undefined if it is none, or if its user, password or path cannot be decoded. */
export function parseUrl(raw: string): URL | undefined {
  try {
    const url = new URL(raw);
    for (const part of [url.username, url.password, url.pathname]) decodeURIComponent(part);
    return url;
  } catch {
    return undefined;
  }
}
