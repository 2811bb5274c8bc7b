import { unknownOption } from '../config/unknown-option.ts';
import type { SessionDriver } from '../contract/driver.ts';
import { checkCookie, readCookie, type SessionCookie } from './cookie.ts';
import { engineOfAny } from './plain-driver.ts';
import { openSession, type Session, type SessionContext } from './session.ts';

export interface SessionsOptions {
  /**
   * What the default export of a package's `runtime` entry returns, such as `redis()`. Or any object with `getItem`, `setItem` and
   * `removeItem`.
   */
  driver: SessionDriver;
  /** The cookie's name, or its attributes. Default: what Astro does. */
  cookie?: string | SessionCookie | undefined;
  /** How long a value lives after it was set, in seconds, unless `set` says otherwise. Default: as long as the driver's `ttl` says. */
  ttl?: number | undefined;
}

export interface Sessions<Data extends object = Record<string, unknown>> {
  /**
   * The session of a request: a `Request`, or the text of its `Cookie` header. Does nothing else: nothing is read before it is asked
   * for, and a visitor without a session who stores nothing costs no call and gets no cookie. Throws a TypeError for anything else.
   */
  open(request: Request | string | null | undefined): Session<Data>;
}

/**
 * Sessions for any server that speaks `Request` and `Response`. Throws a TypeError when the options are wrong.
 *
 * @example
 * const session = sessions.open(request);
 * session.set('cart', ['hat']);
 * const setCookie = await session.commit();
 */
export function createSessions<Data extends object = Record<string, unknown>>(
  options: SessionsOptions,
): Sessions<Data> {
  const { driver, ttl, cookie: named }: Partial<SessionsOptions> = options ?? {};
  const unknown = unknownOption(options ?? {}, ['driver', 'cookie', 'ttl']);
  if (unknown !== undefined) throw new TypeError(`${unknown}.`);
  const given: SessionCookie = typeof named === 'string' ? { name: named } : (named ?? {});
  if (typeof given !== 'object' || Array.isArray(given)) {
    throw new TypeError('`cookie` must be the name of the cookie, or an object with its attributes.');
  }
  const cookie = { ...given, name: given.name ?? 'astro-session' };
  checkCookie(cookie);
  if (ttl !== undefined && !(Number.isFinite(ttl) && ttl > 0)) {
    throw new TypeError('`ttl` must be a positive number of seconds.');
  }
  if (METHODS.some((method) => typeof driver?.[method] !== 'function')) {
    throw new TypeError(
      '`driver` must be a session driver: call the default export of a runtime, as in `driver: redis()`, or pass an object with `getItem`, `setItem` and `removeItem`.',
    );
  }
  const context: SessionContext = { engine: engineOfAny(driver), ttl, cookie };
  return {
    open(request) {
      const isRequest = typeof request === 'object' && request !== null;
      const isText = typeof request === 'string' || request === undefined || request === null;
      if (isRequest ? typeof request.headers?.get !== 'function' : !isText) {
        throw new TypeError(
          '`open` takes a Request, or the text of its Cookie header: in Node `request.headers.cookie`.',
        );
      }
      const header = isRequest ? request.headers.get('cookie') : request;
      const id = header ? readCookie(header, cookie.name) : undefined;
      const knownId = context.engine.isSessionId(id) ? id : undefined;
      return openSession(context, knownId, isRequest ? request : undefined);
    },
  };
}

const METHODS = ['getItem', 'setItem', 'removeItem'] as const;
