import { setTimeout } from 'node:timers/promises';

import type { APIRoute } from 'astro';

/** One guest of the race: hangs up one coat, under a key of its own. */
export const POST: APIRoute = async ({ request, session }) => {
  const { ticket }: { ticket: number } = await request.json();
  // The work of a page: a query, a call to a service. The middleware has read the session before it; Astro saves it after.
  await setTimeout(100);
  session?.set(`ticket:${ticket}`, true);
  return new Response(null, { status: 204 });
};

/** The tickets that the session holds. */
export const GET: APIRoute = async ({ session }) => {
  const keys = [...((await session?.keys()) ?? [])];
  const tickets = keys.filter((key) => key.startsWith('ticket:'));
  return Response.json(tickets.map((key) => Number(key.slice('ticket:'.length))));
};

/** Leaves nothing behind. */
export const DELETE: APIRoute = ({ session }) => {
  session?.destroy();
  return new Response(null, { status: 204 });
};
