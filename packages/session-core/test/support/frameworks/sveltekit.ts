import type { Handle } from '@sveltejs/kit/hooks';
import { sessions } from './sessions.ts';

export const handle: Handle = async ({ event, resolve }) => {
  const session = sessions.open(event.request);
  event.locals.session = session;
  const response = await resolve(event);
  const setCookie = await session.commit();
  if (setCookie) response.headers.append('set-cookie', setCookie);
  return response;
};
