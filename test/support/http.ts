import type { Outcome, Step } from '../apps/astro-7/src/program.ts';
import { decode, encode } from '../apps/astro-7/src/wire.ts';

export type { Outcome, Step };

/** The part of the site that runs a program. */
export type Surface = 'endpoint' | 'page' | 'action' | 'middleware';

export const surfaces: readonly Surface[] = ['endpoint', 'page', 'action', 'middleware'];

export interface Answer {
  status: number;
  headers: Headers;
  body: string;
  /** The time from before the request until the last byte of the response, in milliseconds. */
  ms: number;
}

export interface Attempt extends Answer {
  /** The result of each step; undefined if the whole request failed, for example because the session could not be saved. */
  outcomes: Outcome[] | undefined;
}

export interface RunOptions {
  /** @default 'endpoint' */
  surface?: Surface;
}

/** A simple browser: it stores cookies and sends them. */
export interface Visitor {
  /** The raw values of the cookies, by name. A test can change them. */
  cookies: Map<string, string>;
  /** The value of the session cookie. */
  sessionId(name?: string): string | undefined;
  /** Sends a request. Does not follow redirects, and rejects after a minute. Stores the cookies of the response, as browsers do. */
  fetch(path: string, init?: RequestInit): Promise<Answer>;
  /** Lets the site run a program on the session. Rejects only if there is no response. */
  attempt(steps: Step[], options?: RunOptions): Promise<Attempt>;
  /** Like `attempt`, for programs that must succeed. Resolves to the value of each step. Rejects if the request or a step failed. */
  run(steps: Step[], options?: RunOptions): Promise<unknown[]>;
  /** Another browser with a copy of the cookies, at the same site or at another URL, for example after a restart. */
  fork(url?: string): Visitor;
}

export function createVisitor(url: string, cookies: Iterable<[string, string]> = []): Visitor {
  const visitor: Visitor = {
    cookies: new Map(cookies),

    sessionId: (name = 'astro-session') => visitor.cookies.get(name),

    async fetch(path, init = {}) {
      const headers = new Headers(init.headers);
      // Astro refuses a form without an origin.
      if (!headers.has('origin')) headers.set('origin', url);
      // `Secure` is ignored: built sites set it for the session cookie, but these tests use local HTTP.
      const cookie = [...visitor.cookies].map(([name, value]) => `${name}=${value}`).join('; ');
      if (cookie) headers.set('cookie', cookie);

      const started = performance.now();
      const signal = init.signal ?? AbortSignal.timeout(60_000);
      const response = await fetch(new URL(path, url), { redirect: 'manual', ...init, headers, signal });
      take(visitor.cookies, response.headers.getSetCookie());
      const body = await response.text();
      return { status: response.status, headers: response.headers, body, ms: performance.now() - started };
    },

    async attempt(steps, { surface = 'endpoint' } = {}) {
      const { path, type, wrap, unwrap } = ways[surface];
      const init = { method: 'POST', headers: { 'content-type': type }, body: wrap(encode(steps)) };
      const answer = await visitor.fetch(path, init);
      return { ...answer, outcomes: answer.status === 200 ? decode(unwrap(answer.body)) : undefined };
    },

    async run(steps, options) {
      const { outcomes, status, body } = await visitor.attempt(steps, options);
      if (!outcomes) throw new Error(`the site answered ${status}: ${body.slice(0, 500)}`);
      return outcomes.map((outcome, index) => {
        if ('value' in outcome) return outcome.value;
        throw new Error(`step ${index}, ${steps[index]?.[0]}: ${outcome.error.message}`, { cause: outcome.error });
      });
    },

    fork: (other = url) => createVisitor(other, visitor.cookies),
  };
  return visitor;
}

interface Way {
  path: string;
  type: string;
  wrap(program: string): string;
  unwrap(body: string): string;
}

const plain = { type: 'text/plain;charset=utf-8', wrap: (it: string) => it, unwrap: (it: string) => it };

const ways: Record<Surface, Way> = {
  endpoint: { ...plain, path: '/endpoint' },
  middleware: { ...plain, path: '/middleware' },
  page: { ...plain, path: '/page', unwrap: (html) => unescapeHtml(/<pre>(.*)<\/pre>/s.exec(html)![1]!) },
  action: {
    path: '/_actions/run',
    type: 'application/json',
    wrap: (program) => JSON.stringify({ program }),
    unwrap: (body) => decode(body),
  },
};

const entities: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', '#39': "'" };

function unescapeHtml(text: string): string {
  return text.replaceAll(/&(amp|lt|gt|quot|#39);/g, (_, name: string) => entities[name]!);
}

function take(jar: Map<string, string>, setCookies: string[]): void {
  for (const line of setCookies) {
    const [pair = '', ...attributes] = line.split(';').map((part) => part.trim());
    const equals = pair.indexOf('=');
    const name = pair.slice(0, equals);
    if (isExpired(attributes)) jar.delete(name);
    else jar.set(name, pair.slice(equals + 1));
  }
}

function isExpired(attributes: string[]): boolean {
  const values = new Map(attributes.map((it) => [it.split('=')[0]!.toLowerCase(), it.slice(it.indexOf('=') + 1)]));
  const maxAge = values.get('max-age');
  if (maxAge !== undefined) return Number(maxAge) <= 0;
  return Date.parse(values.get('expires') ?? '') <= Date.now();
}
