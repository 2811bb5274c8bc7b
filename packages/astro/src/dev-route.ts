import type { APIRoute } from 'astro';

export const prerender = false;

/** The route of the dev toolbar's endpoint, so that Astro gives its requests a session. The middleware of `astro dev` answers them. */
export const ALL: APIRoute = () => new Response(null, { status: 404 });
