export const TICKETS = 64;

/**
 * Sends 64 requests at once to one session of the shop at `address`, each setting a key of its own, and returns the tickets that the
 * session holds once every one of them has been answered. Rejects if a request was not answered with success.
 */
export async function race(address: string): Promise<Set<number>> {
  const send = async (method: string, cookie = '', ticket?: number) => {
    const response = await fetch(new URL('/api/tickets', address), {
      method,
      headers: { cookie, 'content-type': 'application/json' },
      ...(ticket !== undefined && { body: JSON.stringify({ ticket }) }),
    });
    if (!response.ok) throw new Error(`${address} answered ${response.status}`);
    return response;
  };

  // Ticket 0 opens the session; its cookie is what the 64 have in common.
  const opened = await send('POST', '', 0);
  const cookie = opened.headers.getSetCookie()[0]?.split(';')[0];

  const guests = Array.from({ length: TICKETS }, (_, index) => send('POST', cookie, index + 1));
  await Promise.all(guests);

  const kept: number[] = await (await send('GET', cookie)).json();
  await send('DELETE', cookie);
  return new Set(kept.filter((ticket) => ticket > 0));
}
