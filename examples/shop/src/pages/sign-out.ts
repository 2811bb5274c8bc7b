import type { APIRoute } from 'astro';

// The cart goes with the session. A request that is still under way cannot bring either back.
export const POST: APIRoute = ({ redirect, session }) => {
  session?.destroy();
  return redirect('/', 303);
};
