import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks';
import { channel } from 'node:diagnostics_channel';
import { EventEmitter } from 'node:events';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { everything } from '@coatcheck/test-support/scope';
import type { SessionDriver } from '@coatcheck/session-core';

/** The part of Astro's session that the tests use. Astro does not export the type. */
export interface AstroSession {
  get(key: unknown): Promise<unknown>;
  has(key: string): Promise<boolean>;
  keys(): Promise<Iterable<string>>;
  values(): Promise<unknown[]>;
  entries(): Promise<[string, unknown][]>;
  set(key: unknown, value: unknown, options?: { ttl?: number }): void;
  delete(key: string): void;
  regenerate(): Promise<void>;
  destroy(): void;
  load(id: string): Promise<void>;
  readonly sessionID: string | undefined;
  [persist: symbol]: () => Promise<void>;
}

interface SessionModule {
  AstroSession: new (options: Record<string, unknown>) => AstroSession;
  PERSIST_SYMBOL: symbol;
}

export interface Astro {
  version: string;
  openSession(driver: SessionDriver, cookies: Cookies): AstroSession;
  /** Saves the session, as Astro does at the end of a request. */
  persist(session: AstroSession): Promise<void>;
}

/** The real session of each supported version of Astro. */
export const astros: Astro[] = await Promise.all(['astro-6', 'astro-7'].map(loadAstro));

/** The versions for tests that need not run on every version: usually only the latest one. */
export const astrosInScope: Astro[] = everything ? astros : astros.slice(-1);

async function loadAstro(name: string): Promise<Astro> {
  const require = createRequire(import.meta.url);
  const manifest = require.resolve(`${name}/package.json`);
  const { version } = require(manifest) as { version: string };
  const { AstroSession, PERSIST_SYMBOL } = (await import(
    new URL('dist/core/session/runtime.js', pathToFileURL(manifest)).href
  )) as SessionModule;
  // Astro keeps one driver for each entrypoint, so each driver needs its own name.
  const names = new WeakMap<SessionDriver, string>();
  const nameOf = (driver: SessionDriver): string => {
    if (!names.has(driver)) names.set(driver, crypto.randomUUID());
    return names.get(driver)!;
  };
  return {
    version,
    openSession: (driver, cookies) =>
      new AstroSession({
        cookies,
        config: { driver: nameOf(driver) },
        runtimeMode: 'production',
        driverFactory: () => driver,
        mockStorage: null,
        logger: { error() {} },
      }),
    persist: (session) => session[PERSIST_SYMBOL]!(),
  };
}

/** The part of a request's cookies that a session uses. */
export interface Cookies {
  get(): { value: string } | undefined;
  set(name: string, value: string): void;
  delete(): void;
  /** What the response sets: an id, or null to delete the cookie; undefined if it does not change the cookie. */
  readonly sent: string | null | undefined;
}

export function createCookies(given: string | undefined): Cookies {
  let sent: string | null | undefined;
  return {
    get() {
      const value = sent === undefined ? given : sent;
      return typeof value === 'string' ? { value } : undefined;
    },
    set(_name, value) {
      sent = value;
    },
    delete() {
      sent = null;
    },
    get sent() {
      return sent;
    },
  };
}

export interface RequestOptions {
  /**
   * Whether Node's HTTP server serves the request, so that the driver can identify it.
   *
   * @default true
   */
  identified?: boolean;
}

const requestStart = channel('http.server.request.start');
/** A context without a request. Otherwise a new request would inherit the identity of the one that started it. */
const outside = AsyncLocalStorage.snapshot();

/** A request with its own asynchronous context, as a server creates it. */
export interface OpenRequest {
  run<Result>(work: () => Result): Result;
  /** Emits the event that Node's server emits after it has sent the response. */
  answer(): void;
}

export function newRequest({ identified = true }: RequestOptions = {}): OpenRequest {
  const response = new EventEmitter();
  const context = outside(() => new AsyncResource('request'));
  return context.runInAsyncScope(() => {
    if (identified) requestStart.publish({ response });
    return { run: AsyncLocalStorage.snapshot(), answer: () => void response.emit('finish') };
  });
}

/** A request that has not ended yet. */
export interface Page {
  session: AstroSession;
  /** Runs code of the page in the context of the request. */
  run<Result>(work: (session: AstroSession) => Result): Result;
  /** Ends the request as Astro does. The browser receives its cookie. */
  end(): Promise<void>;
}

/** A browser on a site. It keeps the cookie that it received last. */
export interface Browser {
  cookie: string | undefined;
  open(): Page;
  /** Runs a whole request: `work` is the page. Astro then saves the session, even if the page throws. */
  visit<Result>(work: (session: AstroSession) => Result | Promise<Result>): Promise<Result>;
}

export function createBrowser(astro: Astro, driver: SessionDriver, options?: RequestOptions, cookie?: string): Browser {
  const browser: Browser = {
    cookie,
    open() {
      const request = newRequest(options);
      const cookies = createCookies(browser.cookie);
      const session = request.run(() => astro.openSession(driver, cookies));
      return {
        session,
        run: (work) => request.run(() => work(session)),
        async end() {
          await request.run(() => astro.persist(session));
          request.answer();
          if (cookies.sent !== undefined) browser.cookie = cookies.sent ?? undefined;
        },
      };
    },
    async visit(work) {
      const page = browser.open();
      try {
        return await page.run(work);
      } finally {
        await page.end();
      }
    },
  };
  return browser;
}
