import { defineMiddleware } from 'astro:middleware';

import { cartCount } from './cart';

export const onRequest = defineMiddleware(async ({ locals, session }, next) => {
  locals.user = await session?.get('user');
  locals.flash = await session?.get('flash');
  locals.cartCount = await cartCount(session);

  const response = await next();

  // A flash message goes once a page has shown it; a redirect or an API answer leaves it for the page that follows. It is deleted
  // here and not in the layout: pages stream, and a component that awaits anything runs after Astro has saved the session.
  const isPage = response.headers.get('content-type')?.startsWith('text/html');
  if (locals.flash && isPage && response.ok) session?.delete('flash');

  return response;
});
