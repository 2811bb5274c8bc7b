import { defineMiddleware } from 'astro:middleware';
import { runProgram } from './program.ts';
import { decode } from './wire.ts';

export const onRequest = defineMiddleware(async ({ locals, request, session, url }, next) => {
  if (url.pathname === '/middleware') {
    locals.outcomes = await runProgram(session!, decode(await request.text()));
  }
  return next();
});
