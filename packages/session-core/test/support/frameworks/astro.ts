import { createSessions } from '@coatcheck/session-core';
import memory from '@coatcheck/session-memory/runtime';
import type { MiddlewareHandler } from 'astro';
import type { Data } from './sessions.ts';

// Not the name of the cookie of `Astro.session`.
const sessions = createSessions<Data>({ driver: memory(), cookie: 'visitor' });

export const onRequest: MiddlewareHandler = async ({ locals, request }, next) => {
  const session = sessions.open(request);
  locals.session = session;
  const response = await next();
  const setCookie = await session.commit();
  if (setCookie) response.headers.append('set-cookie', setCookie);
  return response;
};
