import { unknownOption } from '../config/unknown-option.ts';
import type { SessionDriver } from '../contract/driver.ts';
import { checkCookie, readCookie, type SessionCookie } from './cookie.ts';
import { engineOfAny } from './any-driver.ts';
import { openSession, type Session, type SessionContext } from './session.ts';

/** The options of `createSessions()`. */
export interface SessionsOptions {
  /**
   * What the default export of a package's `runtime` entry returns, such as `redis()`. Or any object with `getItem`, `setItem` and
   * `removeItem`.
   */
  driver: SessionDriver;
  /**
   * The name of the session cookie, or its attributes.
   *
   * @default 'astro-session', with the attributes that Astro uses
   */
  cookie?: string | SessionCookie | undefined;
  /**
   * How long a value lives after it is set, in seconds. The option `ttl` of `set` and `update` overrides it.
   *
   * @default the driver's `ttl`
   */
  ttl?: number | undefined;
}

/** The sessions of one server. */
export interface Sessions<Data extends object = Record<string, unknown>> {
  /**
   * Opens the session of a request. It reads nothing: the first method that needs the stored session reads it. A visitor who has no session
   * and stores nothing causes no backend call and gets no cookie.
   *
   * @param request a `Request`, or its `Cookie` header as a string. Null and undefined mean that it has none.
   * @throws {TypeError} if `request` is anything else.
   */
  open(request: Request | string | null | undefined): Session<Data>;
}

/**
 * Creates sessions for any server that uses `Request` and `Response`, or `node:http`.
 *
 * @throws {TypeError} if the options are wrong.
 * @example
 * const sessions = createSessions({ driver: redis() });
 *
 * const session = sessions.open(request);
 * session.set('cart', ['hat']);
 * const setCookie = await session.commit();
 */
export function createSessions<Data extends object = Record<string, unknown>>(
  options: SessionsOptions,
): Sessions<Data> {
  const { driver, ttl, cookie: cookieOption }: Partial<SessionsOptions> = options ?? {};
  const unknown = unknownOption(options ?? {}, ['driver', 'cookie', 'ttl']);
  if (unknown !== undefined) throw new TypeError(`${unknown}.`);
  const attributes: SessionCookie = typeof cookieOption === 'string' ? { name: cookieOption } : (cookieOption ?? {});
  if (typeof attributes !== 'object' || Array.isArray(attributes)) {
    throw new TypeError('`cookie` must be the name of the cookie, or an object with its attributes.');
  }
  const cookie = { ...attributes, name: attributes.name ?? 'astro-session' };
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
      const isHeader = typeof request === 'string' || request === undefined || request === null;
      if (isRequest ? typeof request.headers?.get !== 'function' : !isHeader) {
        throw new TypeError(
          '`open` takes a Request, or its Cookie header as a string: in Node, `request.headers.cookie`.',
        );
      }
      const header = isRequest ? request.headers.get('cookie') : request;
      const id = header ? readCookie(header, cookie.name) : undefined;
      const validId = context.engine.isSessionId(id) ? id : undefined;
      return openSession(context, validId, isRequest ? request : undefined);
    },
  };
}

const METHODS = ['getItem', 'setItem', 'removeItem'] as const;
