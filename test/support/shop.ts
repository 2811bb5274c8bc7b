import { expect } from 'vitest';
import { createVisitor, surfaces } from './http.ts';
import type { Site } from './site.ts';

/**
 * A visit as a shop sees it: a cart that is filled from everywhere, a sign-in that makes a new session of it, a code that expires, and
 * a sign-out that a request under way cannot undo.
 */
export async function isAShop(site: Site): Promise<void> {
  const visitor = createVisitor(site.url);
  for (const [index, surface] of surfaces.entries()) {
    await visitor.run([['set', `cart:${index}`, new Map([['tea', 2n]])]], { surface });
    expect(await visitor.fork().run([['get', `cart:${index}`]], { surface })).toEqual([new Map([['tea', 2n]])]);
  }

  const anonymous = visitor.fork();
  await visitor.run([['regenerate'], ['set', 'user', 'ada'], ['set', 'code', 1234, { ttl: 1 }]]);
  expect(visitor.sessionId()).not.toBe(anonymous.sessionId());
  expect(
    await visitor.run([
      ['get', 'user'],
      ['has', 'cart:3'],
    ]),
  ).toEqual(['ada', true]);
  expect(await anonymous.run([['keys']])).toEqual([[]]);
  await expect.poll(() => visitor.run([['get', 'code']]), { timeout: 10_000 }).toEqual([undefined]);

  const signedIn = visitor.fork();
  const gate = `late ${crypto.randomUUID()}`;
  const late = signedIn.fork().run([
    ['get', 'user'],
    ['wait', gate],
    ['set', 'cart:late', 1],
  ]);
  await site.gate(gate).arrived();
  await visitor.run([['destroy']]);
  await site.gate(gate).open();
  await late;
  expect(visitor.sessionId()).toBeUndefined();
  expect(await signedIn.run([['keys']])).toEqual([[]]);
}
