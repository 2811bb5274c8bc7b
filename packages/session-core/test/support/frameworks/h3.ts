import { defineMiddleware } from 'h3';
import { sessions } from './sessions.ts';

export default defineMiddleware(async (event, next) => {
  const session = sessions.open(event.req);
  event.context.session = session;
  const answer = await next();
  const setCookie = await session.commit();
  if (setCookie) event.res.headers.append('set-cookie', setCookie);
  return answer;
});
