import { unknownOption } from '../config/unknown-option.ts';

/** The attributes of the session cookie. They have the same form as Astro's `session.cookie`. `HttpOnly` is always set. */
export interface SessionCookie {
  /**
   * The name: letters, digits, `_` and `-`. Use a name that starts with `__Host-`, unless several hosts or an Astro site share the cookie.
   * Browsers accept such a cookie only with `Secure`, with the path `/` and without a domain. So no other host, not even a subdomain, can
   * set it.
   *
   * @default 'astro-session', as in Astro
   */
  name?: string | undefined;
  /**
   * The domain whose hosts receive the cookie.
   *
   * @default none (only the host that sets the cookie receives it)
   */
  domain?: string | undefined;
  /**
   * The path below which browsers send the cookie.
   *
   * @default '/'
   */
  path?: string | undefined;
  /**
   * How long browsers keep the cookie, in seconds, at least 1. If it is set, every write renews the cookie.
   *
   * @default none (browsers keep the cookie until they are closed)
   */
  maxAge?: number | undefined;
  /**
   * With which cross-site requests browsers send the cookie. `true` is `strict`, `false` omits the attribute. `none` needs `secure`.
   *
   * @default 'lax'
   */
  sameSite?: 'strict' | 'lax' | 'none' | boolean | undefined;
  /**
   * Whether browsers send the cookie over HTTPS only.
   *
   * @default true, except for a request to an `http:` URL on localhost while `NODE_ENV` is `development` or `test`. Safari drops `Secure`
   *   cookies there. The URL alone does not decide, because behind a proxy, every URL may be on localhost.
   */
  secure?: boolean | undefined;
  /**
   * Whether browsers keep a separate cookie for each site that embeds yours
   * (https://developer.mozilla.org/docs/Web/Privacy/Guides/Privacy_sandbox/Partitioned_cookies). Needs `secure`, and in most cases
   * `sameSite: 'none'`.
   *
   * @default false
   */
  partitioned?: boolean | undefined;
}

const ATTRIBUTES = ['name', 'domain', 'path', 'maxAge', 'sameSite', 'secure', 'partitioned'];

/**
 * Checks the attributes of a cookie.
 *
 * @throws {TypeError} for unknown and invalid attributes, and for combinations with which browsers silently drop the cookie.
 */
export function checkCookie(cookie: SessionCookie & { name: string }): void {
  const { name, domain, path, maxAge, sameSite, secure, partitioned } = cookie;
  const unknown = unknownOption(cookie, ATTRIBUTES, 'cookie.');
  if (unknown !== undefined) throw new TypeError(`${unknown}.`);
  const matches = (value: unknown, pattern: RegExp): boolean => typeof value === 'string' && pattern.test(value);
  if (!matches(name, /^[\w-]+$/)) throw new TypeError('`cookie.name` must contain only letters, digits, _ and -.');
  if (domain !== undefined && !matches(domain, /^\.?[a-z\d-]+(?:\.[a-z\d-]+)*$/i)) {
    throw new TypeError('`cookie.domain` must be a host name, such as `shop.example`.');
  }
  if (path !== undefined && !matches(path, /^\/[\x21-\x3a\x3c-\x7e]*$/)) {
    throw new TypeError('`cookie.path` must start with `/`, and must not contain spaces or semicolons.');
  }
  // JavaScript writes very large numbers with an exponent, such as `1e+21`, which browsers do not accept.
  if (maxAge !== undefined && !(Number.isFinite(maxAge) && maxAge >= 1 && maxAge <= Number.MAX_SAFE_INTEGER)) {
    throw new TypeError('`cookie.maxAge` must be a number of seconds, at least 1.');
  }
  if (sameSite !== undefined && typeof sameSite !== 'boolean' && !matches(sameSite, /^(?:strict|lax|none)$/)) {
    throw new TypeError("`cookie.sameSite` must be 'strict', 'lax', 'none', true or false.");
  }
  for (const [attribute, value] of Object.entries({ secure, partitioned })) {
    if (value !== undefined && typeof value !== 'boolean') {
      throw new TypeError(`\`cookie.${attribute}\` must be true or false.`);
    }
  }
  // Browsers silently drop these cookies: https://datatracker.ietf.org/doc/html/draft-ietf-httpbis-rfc6265bis
  const reason = needsSecure(cookie);
  if (reason && secure === false) {
    throw new TypeError(
      `${reason} needs \`cookie.secure\`: browsers drop the cookie without it. Leave \`secure\` out.`,
    );
  }
  if (hasHostPrefix(name) && (domain !== undefined || (path ?? '/') !== '/')) {
    throw new TypeError(
      'A `cookie.name` that starts with `__Host-` requires the `cookie.path` `/` and no `cookie.domain`: browsers drop the cookie ' +
        'otherwise. Leave both out, or choose another name.',
    );
  }
}

/** The value of the first cookie with this name in a `Cookie` header. Undefined if there is none. */
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

// Browsers remove only spaces and tabs. `trim` would also remove other characters, such as U+00A0. Then a cookie named `\u00A0sid`, which
// anyone may set, would be read as `sid`.
function withoutSpaces(text: string): string {
  const isSpace = (index: number): boolean => text[index] === ' ' || text[index] === '\t';
  let start = 0;
  let end = text.length;
  while (start < end && isSpace(start)) start++;
  while (end > start && isSpace(end - 1)) end--;
  return text.slice(start, end);
}

/**
 * The value of a `Set-Cookie` header.
 *
 * @param value the session id. An empty string removes the cookie.
 * @param isLocal whether the request is from local development, where `secure` is false by default.
 */
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

/** Why browsers drop the cookie without `Secure`, even on localhost, as the start of an error message. Undefined if they keep it. */
function needsSecure({ name, sameSite, partitioned }: SessionCookie & { name: string }): string | undefined {
  if (hasHostPrefix(name)) return 'A `cookie.name` that starts with `__Host-`';
  const prefix = /^__(?:Secure|Http)-/i.exec(name)?.[0];
  if (prefix !== undefined) return `A \`cookie.name\` that starts with \`${prefix}\``;
  if (sameSite === 'none') return "`cookie.sameSite: 'none'`";
  return partitioned ? '`cookie.partitioned`' : undefined;
}

function hasHostPrefix(name: string): boolean {
  return /^__Host-/i.test(name);
}

const sameSiteNames = { strict: 'Strict', lax: 'Lax', none: 'None' };

/**
 * Whether a request is from local development or a test, without HTTPS. The URL alone does not show this: behind a proxy, every request may
 * be to `http://localhost`, which is nginx's default with `proxy_pass http://localhost:3000`.
 */
export function isLocalDevelopment(url: string): boolean {
  const mode = globalThis.process?.env?.['NODE_ENV'];
  if (mode !== 'development' && mode !== 'test') return false;
  const host = /^http:\/\/(?:[^/?#]*@)?(\[[^\]]*\]|[^:/?#]*)/i.exec(url)?.[1]?.toLowerCase() ?? '';
  return host === 'localhost' || host.endsWith('.localhost') || host === '[::1]' || /^127(?:\.\d+){3}$/.test(host);
}
