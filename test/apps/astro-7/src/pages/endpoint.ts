import type { APIRoute } from 'astro';
import { runProgram } from '../program.ts';
import { decode, encode } from '../wire.ts';

export const POST: APIRoute = async ({ request, session }) => {
  const steps = decode(await request.text());
  return new Response(encode(await runProgram(session!, steps)));
};
