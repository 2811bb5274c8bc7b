import type { APIRoute } from 'astro';
import { arrivalsAt, openGate } from '../gates.ts';

export const POST: APIRoute = ({ url }) => {
  openGate(url.searchParams.get('name')!);
  return new Response();
};

/** Answers as soon as so many requests have arrived at the gate. */
export const GET: APIRoute = async ({ url }) => {
  await arrivalsAt(url.searchParams.get('name')!, Number(url.searchParams.get('arrivals')));
  return new Response();
};
