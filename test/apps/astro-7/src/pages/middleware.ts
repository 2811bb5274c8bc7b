import type { APIRoute } from 'astro';
import { encode } from '../wire.ts';

// The work was done by src/middleware.ts, before this endpoint ran.
export const POST: APIRoute = ({ locals }) => new Response(encode(locals.outcomes));
