import { createSessions, type SessionDriver } from '@coatcheck/session-core';
import type { SessionDriverError } from '@coatcheck/session-core/driver';
import type { Isolate } from '../support/isolates.ts';

/** What visitors do on a site. Each method is one operation on the backend, and rejects with a `SessionDriverError` if that fails. */
export interface VisitedSite {
  /** Creates a session that has the key `entered`. */
  enter(): Promise<{ id: string; cookie: string }>;
  /** Resolves to the value of `entered`. */
  read(cookie: string): Promise<unknown>;
  /** Stores a value under this key. Resolves to the new cookie if the session was replaced. */
  write(cookie: string, key: string): Promise<string | undefined>;
  signOut(cookie: string): Promise<void>;
  keys(cookie: string): Promise<string[]>;
}

/** A site in this process. */
export function siteOn(driver: SessionDriver): VisitedSite {
  const sessions = createSessions<Record<string, number>>({ driver });
  return {
    async enter() {
      const session = sessions.open('');
      session.set('entered', 1);
      const cookie = (await session.commit())!.split(';')[0]!;
      return { id: session.sessionID!, cookie };
    },
    read: (cookie) => sessions.open(cookie).get('entered'),
    async write(cookie, key) {
      const session = sessions.open(cookie);
      session.set(key, 1);
      return session.commit();
    },
    async signOut(cookie) {
      const session = sessions.open(cookie);
      session.destroy();
      await session.commit();
    },
    keys: (cookie) => sessions.open(cookie).keys(),
  };
}

/** A request to `serveSite`: the name of a method, and its arguments. */
interface Call {
  method: keyof VisitedSite;
  args: string[];
}

/** The response of `serveSite`. */
interface Answer {
  result?: unknown;
  error?: Pick<SessionDriverError, 'code' | 'message'>;
}

/** Answers a request of `siteAt`. */
export async function serveSite(site: VisitedSite, request: Request): Promise<Response> {
  const { method, args } = (await request.json()) as Call;
  const work: (...args: string[]) => Promise<unknown> = site[method];
  const answer: Answer = await work(...args).then(
    (result) => ({ result }),
    ({ code, message }: SessionDriverError) => ({ error: { code, message } }),
  );
  return Response.json(answer);
}

/** A site in a Worker that answers with `serveSite`. */
export function siteAt(worker: Isolate): VisitedSite {
  const ask = async <Result>(method: Call['method'], ...args: string[]): Promise<Result> => {
    const body = JSON.stringify({ method, args } satisfies Call);
    const { result, error } = JSON.parse((await worker.fetch('/', { method: 'POST', body })).text) as Answer;
    if (error) throw Object.assign(new Error(error.message), error);
    return result as Result;
  };
  return {
    enter: () => ask('enter'),
    read: (cookie) => ask('read', cookie),
    write: (cookie, key) => ask('write', cookie, key),
    signOut: (cookie) => ask('signOut', cookie),
    keys: (cookie) => ask('keys', cookie),
  };
}
