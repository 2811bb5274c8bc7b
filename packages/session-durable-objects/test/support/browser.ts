import type { Isolate } from './objects.ts';

export interface Answer {
  status: number;
  /** The parsed JSON, or the text. */
  body: unknown;
  /** `body` if it is an error. */
  error: { code?: string; message?: string; cause?: string };
}

/** Sends a request to the Worker of `test/workers/sessions.ts`; a POST if there is something to send. */
export async function ask(
  at: Isolate,
  path: string,
  sent?: unknown,
  cookie = '',
): Promise<Answer & { cookie: string }> {
  const init = sent === undefined ? {} : { method: 'POST', body: JSON.stringify(sent, replace) };
  const { status, text, headers } = await at.fetch(path, { ...init, headers: { cookie } });
  const [given] = headers.getSetCookie();
  if (given) cookie = /Max-Age=0/.test(given) ? '' : given.split(';')[0]!;
  const body: unknown = /^[[{"]|^null$/.test(text) ? JSON.parse(text) : text;
  return { status, body, error: status === 500 ? (body as Answer['error']) : {}, cookie };
}

function replace(_: string, value: unknown): unknown {
  if (value instanceof Map) return { map: [...value] };
  return value === Infinity ? 'Infinity' : value;
}

/** A browser that sends its cookie, and keeps the one it receives. */
export interface Browser {
  /** Another window of the same browser, on another isolate if `elsewhere` is given. */
  fork(elsewhere?: Isolate): Browser;
  go(path: string): Promise<Answer>;
  /** All values of the session. */
  session(): Promise<Record<string, unknown>>;
}

export function browser(at: Isolate, cookie = ''): Browser {
  const go = async (path: string): Promise<Answer> => {
    const answer = await ask(at, path, undefined, cookie);
    cookie = answer.cookie;
    return answer;
  };
  return {
    fork: (elsewhere = at) => browser(elsewhere, cookie),
    go,
    session: async () => (await go('/all')).body as Record<string, unknown>,
  };
}
