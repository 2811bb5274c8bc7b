/** The attributes of the session cookie; the same shape as in Astro's `session.cookie`. `HttpOnly` is always set. */
export interface SessionCookie {
  /** Letters, digits, `_` and `-`. Default: `astro-session`, as in Astro. */
  name?: string;
  domain?: string;
  /** Default: `/`. */
  path?: string;
  /** Seconds, at least 1. Default: the cookie lasts as long as the browser runs. When it is set, every write renews the cookie. */
  maxAge?: number;
  /** Default: `lax`. `true` stands for `strict`, `false` for no attribute. */
  sameSite?: 'strict' | 'lax' | 'none' | boolean;
  /** Default: true, except where the request came to localhost and browsers take the cookie without it. */
  secure?: boolean;
}

/** Throws a TypeError for what would make no cookie, or one with other attributes than were meant. */
export function checkCookie({ name, domain, path, maxAge, sameSite, secure }: SessionCookie & { name: string }): void {
  const isText = (value: unknown, form: RegExp): boolean => typeof value === 'string' && form.test(value);
  if (!isText(name, /^[\w-]+$/)) throw new TypeError('`cookie.name` may hold letters, digits, _ and - only.');
  for (const [attribute, value] of Object.entries({ domain, path })) {
    if (value !== undefined && !isText(value, /^[\x21-\x3a\x3c-\x7e]+$/)) {
      throw new TypeError(`\`cookie.${attribute}\` must be text without spaces and semicolons.`);
    }
  }
  // Larger numbers are written in a way that browsers do not read.
  if (maxAge !== undefined && !(Number.isFinite(maxAge) && maxAge >= 1 && maxAge <= Number.MAX_SAFE_INTEGER)) {
    throw new TypeError('`cookie.maxAge` must be a number of seconds, at least 1.');
  }
  if (sameSite !== undefined && typeof sameSite !== 'boolean' && !isText(sameSite, /^(?:strict|lax|none)$/)) {
    throw new TypeError("`cookie.sameSite` must be 'strict', 'lax', 'none', true or false.");
  }
  if (secure !== undefined && typeof secure !== 'boolean') {
    throw new TypeError('`cookie.secure` must be true or false.');
  }
}

/** The value of the first cookie of that name in a `Cookie` header. */
export function readCookie(header: string, name: string): string | undefined {
  let start = 0;
  while (start < header.length) {
    let end = header.indexOf(';', start);
    if (end < 0) end = header.length;
    const equals = header.indexOf('=', start);
    if (equals >= 0 && equals < end && withoutSpaces(header.slice(start, equals)) === name)
      return withoutSpaces(header.slice(equals + 1, end));
    start = end + 1;
  }
  return undefined;
}

// `trim` also takes what browsers leave in a name: anyone could send `\u00A0sid` in the place of the `sid` that only the server may set.
function withoutSpaces(text: string): string {
  const isSpace = (index: number): boolean => text[index] === ' ' || text[index] === '\t';
  let start = 0;
  let end = text.length;
  while (start < end && isSpace(start)) start++;
  while (end > start && isSpace(end - 1)) end--;
  return text.slice(start, end);
}

/** A `Set-Cookie` value; with the empty text as the value, one that removes the cookie. */
export function writeCookie(cookie: SessionCookie & { name: string }, value: string, isLocal: boolean): string {
  const { name, domain, path = '/', maxAge, sameSite = 'lax', secure = !isLocal || needsSecure(cookie) } = cookie;
  const age = value === '' ? 0 : maxAge;
  return [
    `${name}=${value}`,
    age !== undefined && `Max-Age=${Math.floor(age)}`,
    domain && `Domain=${domain}`,
    `Path=${path}`,
    'HttpOnly',
    secure && 'Secure',
    sameSite !== false && `SameSite=${sameSiteNames[sameSite === true ? 'strict' : sameSite]}`,
  ]
    .filter(Boolean)
    .join('; ');
}

/** Whether browsers refuse the cookie without `Secure`, on localhost too. */
function needsSecure({ name, sameSite }: SessionCookie & { name: string }): boolean {
  return sameSite === 'none' || /^__(?:Secure|Host)-/i.test(name);
}

const sameSiteNames = { strict: 'Strict', lax: 'Lax', none: 'None' };

/** Whether a URL points to this machine, where browsers have no certificate to ask for. */
export function isLocalUrl(url: string): boolean {
  const host = /^https?:\/\/(?:[^/?#]*@)?(\[[^\]]*\]|[^:/?#]*)/i.exec(url)?.[1]?.toLowerCase() ?? '';
  return host === 'localhost' || host.endsWith('.localhost') || host === '[::1]' || /^127(?:\.\d+){3}$/.test(host);
}
