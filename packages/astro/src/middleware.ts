import {
  describeSession,
  isCoatcheckDriver,
  type SessionDriver,
  type SessionDriverError,
} from '@coatcheck/session-core';
import { createError } from '@coatcheck/session-core/driver';
import type { APIContext, MiddlewareNext } from 'astro';
import { createOnce } from './create-once.ts';
import type { CurrentSession, RequestSessions } from './types.ts';

/** The session cookie with the attributes that Astro uses, including its defaults. */
export interface SentCookie {
  name: string;
  domain?: string;
  path: string;
  /** In seconds. Undefined: browsers keep the cookie until they are closed. */
  maxAge?: number;
  sameSite: 'strict' | 'lax' | 'none' | boolean;
  secure: boolean;
}

/** What the middleware knows about the site. The integration writes it into the build. */
export interface MiddlewareOptions {
  cookie: SentCookie;
  /** Whether the cookie is renewed for sessions that are used without being changed. Needs `maxAge`. */
  renewCookie: boolean;
  /** Creates the driver of the site. Called when it is first needed. Absent: the site has no Coatcheck driver. */
  createDriver?: (() => Promise<SessionDriver>) | undefined;
}

/** A middleware of Astro that always answers. */
export type Middleware = (context: APIContext, next: MiddlewareNext) => Promise<Response>;

/**
 * Creates the middleware that sets `locals.sessions` and renews the session cookie. It asks the backend only when a page uses
 * `locals.sessions`, and when it renews the cookie.
 */
export function createMiddleware(options: MiddlewareOptions): Middleware {
  const driverOf = options.createDriver && createOnce(options.createDriver);
  const describe = async (id: string | undefined): Promise<CurrentSession | null> => {
    // Also without a session: otherwise, only visitors with a session would meet the error.
    if (!driverOf) throw noDriver();
    if (!id) return null;
    const driver = await driverOf();
    if (!isCoatcheckDriver(driver)) throw noDriver();
    return describeSession(driver, id);
  };

  return async (context, next) => {
    // A prerendered page has no visitor.
    if (context.isPrerendered) return next();
    const sentId = context.request.headers.has('cookie') ? context.cookies.get(options.cookie.name)?.value : undefined;
    /** The ids of the sessions that the page has asked about. */
    const described = new Set<string | undefined>();
    const sessions = sessionsOf(context, sentId, options.cookie.name, (id) => {
      described.add(id);
      return describe(id);
    });
    // Not enumerable: where an adapter runs middleware on the edge, it sends the enumerable locals to the page as JSON.
    Object.defineProperty(context.locals, 'sessions', { value: sessions, configurable: true, writable: true });
    const response = await next();
    if (!options.renewCookie || sentId === undefined) return response;
    // `current()` extends the session as a read does.
    const isUsed = hasLoaded(context, sentId) || (described.has(sentId) && context.session?.sessionID === undefined);
    return isUsed ? renewed(context, sentId, response, options.cookie, describe) : response;
  };
}

/** Describes the stored session with an id; null if there is no id. */
type Describe = (id: string | undefined) => Promise<CurrentSession | null>;

function noDriver(): SessionDriverError {
  const message =
    '`locals.sessions` needs a Coatcheck driver in `session.driver`. `astro dev` and `astro build` log what to write.';
  return createError('@coatcheck/astro', 'configuration', message);
}

function sessionsOf(
  context: APIContext,
  sentId: string | undefined,
  cookieName: string,
  describe: Describe,
): RequestSessions {
  let last: { id: string | undefined; description: Promise<CurrentSession | null> } | undefined;
  return {
    async current() {
      // Astro sets and deletes the cookie as soon as the session changes. `context.session` would be created here, and Astro loses the cookie
      // of a session that was created before a rewrite.
      const id = context.cookies.get(cookieName)?.value;
      if (!last || last.id !== id) last = { id, description: describe(id) };
      return last.description;
    },
    async destroyed() {
      const id = hasLoaded(context, sentId) ? sentId : undefined;
      return (await describe(id)) === null && id !== undefined;
    },
  };
}

/**
 * Whether the request has loaded the session of its cookie, and still has it. If there was none, Astro has chosen another id; after
 * `regenerate()` and `load()`, too; and none after `destroy()`.
 */
function hasLoaded(context: APIContext, sentId: string | undefined): sentId is string {
  return sentId !== undefined && context.session?.sessionID === sentId;
}

/**
 * The response, with the session cookie after half of its life.
 *
 * A cookie does not tell its age. So a second cookie goes with it that lives half as long: while the browser sends it, the session cookie is
 * young enough. It holds no data.
 */
async function renewed(
  context: APIContext,
  id: string,
  response: Response,
  { name, maxAge, ...attributes }: SentCookie,
  describe: Describe,
): Promise<Response> {
  const marker = `${name}-renewed`;
  if (maxAge === undefined || context.cookies.has(marker)) return response;
  if (isShared(context, response) || isSet(context, response, name) || !canBeCopied(response)) return response;
  // Read again: a cookie of a session that is gone could replace the one of a sign-in that happened meanwhile. If the backend fails, the next
  // request renews the cookie.
  if ((await describe(id).catch(() => null)) === null) return response;
  context.cookies.set(name, id, { ...attributes, httpOnly: true, maxAge });
  const markerAge = Math.max(Math.floor(Math.min(maxAge, LONGEST_AGE) / 2), 1);
  context.cookies.set(marker, '1', { ...attributes, httpOnly: true, maxAge: markerAge });
  const own = isImmutable(response) ? new Response(response.body, response) : response;
  // So that nobody adds a header for shared caches later, as Netlify's adapter does for responses without one.
  if (!own.headers.has('cache-control')) own.headers.set('cache-control', 'private');
  return own;
}

/** The longest life of a cookie in browsers, in seconds: 400 days (RFC 6265bis). */
const LONGEST_AGE = 400 * 24 * 60 * 60;

/** Adapters append cookies to the headers. Those of `Response.redirect()` and of an answer of `fetch()` cannot be changed. */
function isImmutable({ headers }: Response): boolean {
  try {
    headers.delete('coatcheck');
    return false;
  } catch {
    return true;
  }
}

/** Whether a `Response` can be created with this status. The others are errors and upgrades of the protocol. */
function canBeCopied({ status }: Response): boolean {
  return status >= 200;
}

/** Whether this request has already set or deleted a cookie. */
function isSet(context: APIContext, { headers }: Response, name: string): boolean {
  const lines = [...context.cookies.headers(), ...headers.getSetCookie()];
  return lines.some((line) => line.startsWith(`${name}=`)) || headers.has('clear-site-data');
}

/** Whether a shared cache may store the response. It would give the cookie of one visitor to others. */
function isShared(context: APIContext, { headers }: Response): boolean {
  const { maxAge, tags = [] } = context.cache?.options ?? {};
  if (maxAge !== undefined || tags.length > 0) return true;
  const isPrivate = /\b(?:private|no-store)\b/i;
  const control = headers.get('cache-control') ?? '';
  if (/\b(?:public|s-maxage)\b/i.test(control)) return true;
  const isKept = /\bmax-age="?0*[1-9]/i.test(control) || Date.parse(headers.get('expires') ?? '') > Date.now();
  if (isKept && !isPrivate.test(control)) return true;
  // For one cache only, such as `cdn-cache-control` and `surrogate-control`.
  return [...headers].some(
    ([name, value]) =>
      name === 'x-accel-expires' || (/^(?:.+-cache|surrogate|edge)-control$/.test(name) && !isPrivate.test(value)),
  );
}
