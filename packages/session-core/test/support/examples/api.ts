import { createSessions } from '@coatcheck/session-core';
import memory from '@coatcheck/session-memory/runtime';

interface Data {
  user: { name: string };
  cart: Map<string, number>;
  visits: number;
}

const sessions = createSessions<Data>({ driver: memory() });

export async function handle(request: Request): Promise<Response> {
  const session = sessions.open(request); // nothing is read yet

  const user = await session.get('user'); // { name: string } | undefined
  const visits = await session.update('visits', (count = 0) => count + 1); // loses no visit, even if requests overlap
  session.set('cart', new Map([['hat', 2]]), { ttl: 3600 }); // seconds

  const setCookie = await session.commit(); // stores what changed
  const headers = setCookie ? { 'set-cookie': setCookie } : undefined;
  return new Response(`Hello ${user?.name ?? 'stranger'}, visit ${visits}`, { headers: new Headers(headers) });
}
