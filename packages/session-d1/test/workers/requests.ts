import type { D1Database } from '@cloudflare/workers-types';
import { createSessions, type Session } from '@coatcheck/session-core';
import d1 from '@coatcheck/session-d1/runtime';

// At the top level of a module, a Worker cannot wait for I/O, and has no random values. All requests share the driver, as in a site.
const sessions = createSessions({ driver: d1() });

const routes: Record<string, (session: Session, query: URLSearchParams) => unknown> = {
  '/all': async (session) => Object.fromEntries(await session.entries()),
  async '/set'(session, query) {
    await session.keys();
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 100));
    session.set(query.get('key')!, 1);
  },
  '/count': (session) => session.update('count', (count = 0) => Number(count) + 1),
  '/destroy': (session) => session.destroy(),
};

export default {
  async fetch(request: Request, _env: { DB: D1Database }): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    const session = sessions.open(request);
    try {
      const result = await routes[pathname]!(session, searchParams);
      const setCookie = await session.commit();
      return Response.json(result ?? 'ok', { headers: setCookie ? { 'set-cookie': setCookie } : {} });
    } catch (error) {
      return new Response((error as Error).stack, { status: 500 });
    }
  },
};
