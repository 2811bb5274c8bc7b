import { redirect, type RequestHandler } from '@sveltejs/kit';

export const GET: RequestHandler = async ({ locals, url }) => {
  const visits = await locals.session.update('visits', (count = 0) => count + 1);
  if (url.searchParams.has('elsewhere')) redirect(303, '/');
  return new Response(`Visit ${visits}`);
};

export const DELETE: RequestHandler = ({ locals }) => {
  locals.session.destroy();
  return new Response(null, { status: 204 });
};
