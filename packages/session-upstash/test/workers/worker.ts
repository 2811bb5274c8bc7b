import { createSessions, type SessionDriver, type Sessions } from '@coatcheck/session-core';
import { testDriver, testStore } from '@coatcheck/session-core/testing';
import upstash from '@coatcheck/session-upstash/runtime';
import { openStore, timeLeftAt } from '../support/store.ts';

// A request runs one test of the conformance suite, or is one visit to a site.

interface Env {
  UPSTASH_REDIS_REST_URL: string;
  UPSTASH_REDIS_REST_TOKEN: string;
}

type Data = Record<string, unknown>;

let driver: SessionDriver | undefined;

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    const host = { env: (name: string) => env[name as keyof Env] };
    try {
      if (pathname === '/conformance') {
        await conformanceOf(env, host)[searchParams.get('name')!]!();
        return new Response('passed');
      }
      driver ??= upstash({ timeout: 1500 }, host);
      return await visit(createSessions<Data>({ driver }), pathname, searchParams, request);
    } catch (error) {
      const { code, message, stack } = error as Error & { code?: string };
      return Response.json({ code, message, stack }, { status: 500 });
    }
  },
};

async function visit(
  sessions: Sessions<Data>,
  pathname: string,
  query: URLSearchParams,
  request: Request,
): Promise<Response> {
  const session = sessions.open(request);
  const headers = new Headers();
  if (pathname === '/set') {
    session.set(query.get('key')!, query.get('value'));
    const cookie = await session.commit();
    if (cookie) headers.set('set-cookie', cookie);
  }
  if (pathname === '/count') await session.update('count', (count) => ((count as number | undefined) ?? 0) + 1);
  const entries = pathname === '/all' ? Object.fromEntries(await session.entries()) : {};
  return Response.json(entries, { headers });
}

function conformanceOf(env: Env, host: { env(name: string): string | undefined }): Record<string, () => Promise<void>> {
  const tests: Record<string, () => Promise<void>> = {};
  const it = (title: string, run: () => Promise<void>) => (tests[title] = run);
  const target = { url: env.UPSTASH_REDIS_REST_URL, token: env.UPSTASH_REDIS_REST_TOKEN };
  testStore({
    it,
    createStore: () => openStore(target),
    timeLeft: timeLeftAt(target),
    slackMs: 50,
  });
  testDriver({ it, createDriver: (config) => upstash(config, host) });
  return tests;
}
