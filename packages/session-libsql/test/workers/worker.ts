import { createSessions } from '@coatcheck/session-core';
import libsql from '@coatcheck/session-libsql/runtime';

interface Env {
  LIBSQL_URL: string;
  LIBSQL_AUTH_TOKEN: string;
}

let driver: ReturnType<typeof libsql> | undefined;

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    driver ??= libsql({ url: env.LIBSQL_URL, authToken: env.LIBSQL_AUTH_TOKEN });
    const session = createSessions({ driver }).open(request);
    try {
      const key = new URL(request.url).searchParams.get('set');
      const before = Object.fromEntries(await session.entries());
      if (key) session.set(key, 1);
      const setCookie = await session.commit();
      return Response.json(before, { headers: setCookie ? { 'set-cookie': setCookie } : {} });
    } catch (error) {
      return new Response((error as Error).stack, { status: 500 });
    }
  },
};
