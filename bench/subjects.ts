import { AsyncLocalStorage } from 'node:async_hooks';
import { createHash } from 'node:crypto';
import { channel } from 'node:diagnostics_channel';
import { createSessions, type SessionDriver } from '@coatcheck/session-core';
import type { SessionStorage } from '@remix-run/session';
import type { Redis } from 'ioredis';
import type { Page, PageSession } from './pages.ts';

/** One request to a library, without the server around it: resolves to the `Set-Cookie` that it answers with. */
export type Visit = (request: Request, page: Page) => Promise<string | undefined>;

/** Our `Session`. */
export function session(driver: SessionDriver): Visit {
  const sessions = createSessions({ driver });
  return async (request, page) => {
    const opened = sessions.open(request);
    await page(opened);
    return opened.commit();
  };
}

/** Astro's own session, with its own cookies, as Astro uses them. */
export function astro(driver: object): Visit {
  // Astro keeps one storage for each name.
  const config = { driver: crypto.randomUUID() };
  const driverFactory = () => driver;
  return async (request, page) => {
    const cookies = new AstroCookies(request, logger);
    const opened = new AstroSession({
      cookies,
      config,
      driverFactory,
      runtimeMode: 'production',
      mockStorage: null,
      logger,
    });
    await page(opened);
    await opened[PERSIST_SYMBOL]!();
    return [...cookies.consume()][0];
  };
}

/** Astro's session with a driver of ours, which asks Node's HTTP server for the identity of the request. */
export function astroWithOurs(driver: SessionDriver): Visit {
  const visit = astro(driver);
  return (request, page) =>
    contexts.run(undefined, () => {
      requestStart.publish({});
      return visit(request, page);
    });
}

const contexts = new AsyncLocalStorage();
const requestStart = channel('http.server.request.start');

/** Remix's session. Its cookies are another package, and are not counted. */
export function remix(storage: SessionStorage): Visit {
  return async (request, page) => {
    const id = request.headers.get('cookie')?.slice('astro-session='.length) ?? null;
    const opened = await storage.read(id);
    await page(opened);
    const saved = await storage.save(opened);
    return saved === null ? undefined : `astro-session=${saved}`;
  };
}

/** ioredis and nothing else, a hash for each visitor: what somebody would write who needs no guarantee at all. */
export function raw(client: Redis): Visit {
  return async (request, page) => {
    const id = rawId(request.headers.get('cookie'));
    await page(rawSession(client, id));
    return `astro-session=${id}`;
  };
}

export function rawId(cookies: string | null | undefined): string {
  return /(?:^|; *)astro-session=([\w-]+)/.exec(cookies ?? '')?.[1] ?? crypto.randomUUID();
}

export function rawSession(client: Redis, id: string): PageSession {
  return {
    get: async (key) => JSON.parse((await client.hget(id, key)) ?? 'null'),
    set: (key, value) => client.evalsha(HSET_SHA1, 1, id, key, JSON.stringify(value), WEEK_MS),
  };
}

/** What it writes with; whoever uses it loads it into Redis first. */
export const HSET: string = `redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) return redis.call('PEXPIRE', KEYS[1], ARGV[3])`;
const HSET_SHA1 = createHash('sha1').update(HSET).digest('hex');
const WEEK_MS = 7 * 86_400_000;

export const anonymous: Request = new Request('http://bench.test/');

/** The requests of a visitor who was there before, and whose session one page has filled. */
export async function visitorOf(visit: Visit, fill: Page): Promise<Request> {
  const setCookie = await visit(anonymous, fill);
  return withCookie(setCookie!.split(';')[0]!);
}

export function withCookie(cookie: string): Request {
  return new Request('http://bench.test/', { headers: { cookie } });
}

const logger = { error() {}, warn() {} };

interface AstroSession {
  get(key: string): Promise<unknown>;
  set(key: string, value: unknown): void;
  [persist: symbol]: () => Promise<void>;
}

// Astro does not export them.
const astroRoot = new URL('./', import.meta.resolve('astro/package.json'));
const { AstroSession, PERSIST_SYMBOL } = (await import(new URL('dist/core/session/runtime.js', astroRoot).href)) as {
  AstroSession: new (options: object) => AstroSession;
  PERSIST_SYMBOL: symbol;
};
const { AstroCookies } = (await import(new URL('dist/core/cookies/cookies.js', astroRoot).href)) as {
  AstroCookies: new (request: Request, log: object) => { consume(): Iterable<string> };
};
