import {
  type InspectedSession,
  inspectSession,
  isCoatcheckDriver,
  isSessionDriverError,
  type SessionDriver,
  type StoredEntry,
} from '@coatcheck/session-core';
import type { APIContext } from 'astro';
import { createOnce } from './create-once.ts';
import { createMiddleware, type Middleware, type MiddlewareOptions } from './middleware.ts';
import { follow, record, requestsOf, watchSessionOf } from './recording.ts';
import { TOOLBAR_HEADER, type ShownSession, type ToolbarQuestion } from './toolbar-protocol.ts';

/** What the middleware of `astro dev` knows in addition. */
export interface DevOptions extends MiddlewareOptions {
  /** The path of the endpoint for the dev toolbar, with the site's `base`. */
  toolbarPath: string;
}

/**
 * Creates the middleware for `astro dev`: it also records what requests do to their sessions, and answers the app in the dev toolbar. It
 * answers itself, before the middleware of the site, which could redirect, or use the session.
 */
export function createDevMiddleware({ toolbarPath, ...options }: DevOptions): Middleware {
  const createDriver = options.createDriver && createOnce(options.createDriver);
  const middleware = createMiddleware({ ...options, createDriver });
  const { name } = options.cookie;
  return async (context, next) => {
    if (context.isPrerendered) return middleware(context, next);
    const id = context.request.headers.has('cookie') ? context.cookies.get(name)?.value : undefined;
    if (context.url.pathname === toolbarPath) return answer(context, id, createDriver);
    return record({ method: context.request.method, path: context.url.pathname, id }, async (request, savesIn) => {
      watchSessionOf(context);
      try {
        return await middleware(context, next);
      } finally {
        // Not earlier: Astro loses the cookie of a session that was created before a rewrite. Astro warns when a session is used that the site
        // does not have.
        const session = createDriver && context.session;
        if (session) savesIn(session);
        if (session?.sessionID !== undefined) request.ids.add(session.sessionID);
      }
    });
  };
}

/** Answers the app in the dev toolbar. Only ever about the session of the cookie that the request came with. */
async function answer(
  context: APIContext,
  id: string | undefined,
  createDriver: MiddlewareOptions['createDriver'],
): Promise<Response> {
  const refusal = refusalOf(context.request);
  if (refusal) return refusal;
  const question = questionIn(await context.request.json().catch(() => undefined));
  if (!question) return plain(400, 'This is no question of the dev toolbar.');
  try {
    const driver = await createDriver?.();
    if (!isCoatcheckDriver(driver)) return plain(501, 'The session driver of this site is not a Coatcheck driver.');
    return await answerTo(question, context, id, driver);
  } catch (error) {
    if (isSessionDriverError(error)) return plain(502, error.message);
    throw error;
  }
}

async function answerTo(
  question: ToolbarQuestion,
  { session }: APIContext,
  id: string | undefined,
  driver: SessionDriver,
): Promise<Response> {
  const stored = id === undefined ? null : await inspectSession(driver, id);
  if (question.action === 'show') return json(shown(id, stored));
  if (id === undefined || !stored || !session) return plain(409, 'There is no session anymore.');
  switch (question.action) {
    case 'reveal': {
      const entry = stored.entries.find(({ key }) => key === question.key);
      return entry ? json({ value: display(valueOf(entry)) }) : plain(409, 'There is no such key anymore.');
    }
    case 'delete':
      session.delete(question.key);
      break;
    case 'expire':
      // Not by Astro's session, which would also remove the cookie.
      await driver.removeItem(id);
      break;
    case 'regenerate':
      await session.regenerate();
      follow(id, session.sessionID!);
      break;
    case 'destroy':
      session.destroy();
  }
  return json({});
}

/**
 * The answer to a request that did not come from the dev toolbar of this site: by another method, without the header of the app, from
 * another origin, or from no browser. Browsers send `Origin` with every POST, but `Sec-Fetch-Site` only to `localhost` and with HTTPS.
 */
function refusalOf({ method, headers, url }: Request): Response | undefined {
  if (method !== 'POST') return plain(405, 'Only the dev toolbar asks here.', { allow: 'POST' });
  const site = new URL(url);
  // HTTP/2 has no `Host`.
  const host = headers.get('host') ?? site.host;
  const origin = URL.parse(headers.get('origin') ?? '');
  // Behind a proxy that ends HTTPS, pages have an origin with HTTPS and the server does not know it. The other way round, the page came from
  // somewhere else.
  const isSameOrigin =
    origin?.host === host &&
    (origin.protocol === 'https:' || site.protocol === 'http:') &&
    (headers.get('sec-fetch-site') ?? 'same-origin') === 'same-origin';
  if (!isSameOrigin || !headers.has(TOOLBAR_HEADER))
    return plain(403, 'Only the dev toolbar of this site may ask here.');
  return undefined;
}

function questionIn(body: unknown): ToolbarQuestion | undefined {
  const { action, key } = (body ?? {}) as { action?: unknown; key?: unknown };
  if (action === 'reveal' || action === 'delete') return typeof key === 'string' ? { action, key } : undefined;
  return action === 'show' || action === 'expire' || action === 'regenerate' || action === 'destroy'
    ? { action }
    : undefined;
}

function shown(id: string | undefined, stored: InspectedSession | null): ShownSession {
  const requests = id === undefined ? [] : requestsOf(id);
  return {
    session: stored && {
      handle: stored.handle,
      created: stored.created?.toISOString() ?? null,
      expires: stored.expires?.toISOString() ?? null,
      entries: stored.entries.toSorted(byKey).map((entry) => ({
        key: entry.key,
        type: typeOf(valueOf(entry)),
        bytes: entry.bytes,
        expires: entry.expires?.toISOString() ?? null,
      })),
    },
    hasCookie: id !== undefined,
    requests: requests.map(({ method, path, at, operations, events, reads, writes }) => ({
      method,
      path,
      at,
      operations,
      events,
      reads: [...reads],
      writes: [...writes],
    })),
  };
}

function byKey({ key: one }: StoredEntry, { key: other }: StoredEntry): number {
  return one < other ? -1 : 1;
}

const CORRUPT = Symbol('corrupt');

function valueOf(entry: StoredEntry): unknown {
  try {
    return entry.value();
  } catch {
    return CORRUPT;
  }
}

function typeOf(value: unknown): string {
  if (value === CORRUPT) return 'corrupt';
  if (value === null) return 'null';
  if (typeof value !== 'object') return typeof value;
  // Not `value.constructor`, which may be data.
  const name: unknown = Object.getPrototypeOf(value)?.constructor?.name;
  return typeof name === 'string' ? name : 'Object';
}

/** A value as text, as far as JSON can show it. */
function display(value: unknown): string {
  if (value === CORRUPT) return 'This value is corrupt.';
  const seen = new Set<unknown>();
  const text = JSON.stringify(
    value,
    (_key, item: unknown) => {
      if (typeof item === 'bigint') return `${item}n`;
      if (typeof item !== 'object' || item === null) return item;
      if (seen.has(item)) return '[shown above]';
      seen.add(item);
      if (item instanceof Map || item instanceof Set) return [...item];
      return item instanceof RegExp ? String(item) : item;
    },
    2,
  );
  return text ?? String(value);
}

function json(body: unknown): Response {
  return Response.json(body, { headers: NOT_STORED });
}

function plain(status: number, text: string, headers: Record<string, string> = {}): Response {
  return new Response(text, { status, headers: { ...NOT_STORED, ...headers } });
}

const NOT_STORED = { 'cache-control': 'no-store' };
