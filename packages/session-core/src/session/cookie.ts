import { unknownOption } from '../config/unknown-option.ts';

/** The attributes of the session cookie; the same shape as in Astro's `session.cookie`. `HttpOnly` is always set. */
export interface SessionCookie {
  /**
   * Letters, digits, `_` and `-`. Browsers hold a name that begins with `__Host-` to being `Secure`, with the path `/` and no domain, so
   * that no other host, not even a subdomain, can set the cookie: the best choice where one host is enough. Default: `astro-session`, as
   * in Astro.
   */
  name?: string | undefined;
  /** The hosts that get the cookie. Default: the one that sets it. */
  domain?: string | undefined;
  /** Default: `/`. */
  path?: string | undefined;
  /**
   * How long the browser keeps the cookie, in seconds, at least 1. If set, every write renews the cookie; a read does not. Default: until the
   * browser is closed.
   */
  maxAge?: number | undefined;
  /** `true` means `strict`, `false` omits the attribute. `none` requires `secure`. Default: `lax`. */
  sameSite?: 'strict' | 'lax' | 'none' | boolean | undefined;
  /**
   * By default, it is `false` for a request to `http://localhost` (or another loopback address) while `NODE_ENV` is `development` or `test`,
   * and `true` for any other. Safari drops `Secure` cookies on such a URL. `NODE_ENV` counts because, behind a proxy, every request may seem
   * to have such a URL.
   */
  secure?: boolean | undefined;
  /**
   * Browsers keep a separate cookie for each site that embeds yours
   * (https://developer.mozilla.org/docs/Web/Privacy/Guides/Privacy_sandbox/Partitioned_cookies). Requires `secure`, and usually
   * `sameSite: 'none'`. Default: false.
   */
  partitioned?: boolean | undefined;
}

const ATTRIBUTES = ['name', 'domain', 'path', 'maxAge', 'sameSite', 'secure', 'partitioned'];

/** Throws a TypeError for what would make no cookie, or one with other attributes than were meant. */
export function checkCookie(cookie: SessionCookie & { name: string }): void {
  const { name, domain, path, maxAge, sameSite, secure, partitioned } = cookie;
  const unknown = unknownOption(cookie, ATTRIBUTES, 'cookie.');
  if (unknown !== undefined) throw new TypeError(`${unknown}.`);
  const isText = (value: unknown, form: RegExp): boolean => typeof value === 'string' && form.test(value);
  if (!isText(name, /^[\w-]+$/)) throw new TypeError('`cookie.name` may hold letters, digits, _ and - only.');
  if (domain !== undefined && !isText(domain, /^\.?[a-z\d-]+(?:\.[a-z\d-]+)*$/i)) {
    throw new TypeError('`cookie.domain` must be the name of a host, such as `shop.example`.');
  }
  if (path !== undefined && !isText(path, /^\/[\x21-\x3a\x3c-\x7e]*$/)) {
    throw new TypeError('`cookie.path` must begin with `/`, and hold no spaces and semicolons.');
  }
  // Larger numbers are written in a way that browsers do not read.
  if (maxAge !== undefined && !(Number.isFinite(maxAge) && maxAge >= 1 && maxAge <= Number.MAX_SAFE_INTEGER)) {
    throw new TypeError('`cookie.maxAge` must be a number of seconds, at least 1.');
  }
  if (sameSite !== undefined && typeof sameSite !== 'boolean' && !isText(sameSite, /^(?:strict|lax|none)$/)) {
    throw new TypeError("`cookie.sameSite` must be 'strict', 'lax', 'none', true or false.");
  }
  for (const [attribute, value] of Object.entries({ secure, partitioned })) {
    if (value !== undefined && typeof value !== 'boolean') {
      throw new TypeError(`\`cookie.${attribute}\` must be true or false.`);
    }
  }
  // Browsers drop these without a word: https://datatracker.ietf.org/doc/html/draft-ietf-httpbis-rfc6265bis
  const reason = needsSecure(cookie);
  if (reason && secure === false) {
    throw new TypeError(
      `${reason} needs \`cookie.secure\`: browsers drop the cookie without it. Leave \`secure\` out.`,
    );
  }
  if (isHostName(name) && (domain !== undefined || (path ?? '/') !== '/')) {
    throw new TypeError(
      'A `cookie.name` that begins with `__Host-` goes with no `cookie.domain` and with the `cookie.path` `/`: browsers drop the cookie ' +
        'otherwise. Leave both out, or choose another name.',
    );
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
  const { name, domain, path = '/', maxAge, sameSite = 'lax', partitioned } = cookie;
  const { secure = !isLocal || needsSecure(cookie) !== undefined } = cookie;
  const age = value === '' ? 0 : maxAge;
  return [
    `${name}=${value}`,
    age !== undefined && `Max-Age=${Math.floor(age)}`,
    domain && `Domain=${domain}`,
    `Path=${path}`,
    'HttpOnly',
    secure && 'Secure',
    sameSite !== false && `SameSite=${sameSiteNames[sameSite === true ? 'strict' : sameSite]}`,
    partitioned && 'Partitioned',
  ]
    .filter(Boolean)
    .join('; ');
}

/** What makes browsers refuse the cookie without `Secure`, on localhost too. */
function needsSecure({ name, sameSite, partitioned }: SessionCookie & { name: string }): string | undefined {
  if (isHostName(name)) return 'A `cookie.name` that begins with `__Host-`';
  const prefix = /^__(?:Secure|Http)-/i.exec(name)?.[0];
  if (prefix !== undefined) return `A \`cookie.name\` that begins with \`${prefix}\``;
  if (sameSite === 'none') return "`cookie.sameSite: 'none'`";
  return partitioned ? '`cookie.partitioned`' : undefined;
}

function isHostName(name: string): boolean {
  return /^__Host-/i.test(name);
}

const sameSiteNames = { strict: 'Strict', lax: 'Lax', none: 'None' };

/**
 * Whether a request was made to this machine while somebody develops or tests, where there is no certificate. The URL alone does not tell:
 * behind a proxy every visitor's request may be one to `http://localhost` (nginx's default for `proxy_pass http://localhost:3000`).
 */
export function isLocalDevelopment(url: string): boolean {
  const mode = globalThis.process?.env?.['NODE_ENV'];
  if (mode !== 'development' && mode !== 'test') return false;
  const host = /^http:\/\/(?:[^/?#]*@)?(\[[^\]]*\]|[^:/?#]*)/i.exec(url)?.[1]?.toLowerCase() ?? '';
  return host === 'localhost' || host.endsWith('.localhost') || host === '[::1]' || /^127(?:\.\d+){3}$/.test(host);
}
