import { createMiddleware } from 'hono/factory';
import { sessions, type VisitorSession } from './sessions.ts';

export const withSession = createMiddleware<{ Variables: { session: VisitorSession } }>(async (context, next) => {
  const session = sessions.open(context.req.raw);
  context.set('session', session);
  await next();
  const setCookie = await session.commit();
  if (setCookie) context.header('set-cookie', setCookie, { append: true });
});
