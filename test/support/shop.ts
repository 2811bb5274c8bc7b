import { expect } from 'vitest';
import { createVisitor, surfaces } from './http.ts';
import type { Site } from './site.ts';

/** A site to visit. A Worker has no gates, because its requests cannot wait for each other; the order of its requests is random. */
export type Shop = Pick<Site, 'url'> & Partial<Pick<Site, 'gate'>>;

/**
 * The shop scenario, a typical use of sessions: a cart that concurrent requests fill, a flash message that is shown once, a sign-in that
 * regenerates the session, a code that expires, and a sign-out that a late request cannot undo.
 */
export async function isAShop(shop: Shop): Promise<void> {
  const visitor = createVisitor(shop.url);
  for (const [index, surface] of surfaces.entries()) {
    const cart = `cart:${index}`;
    await visitor.run([['set', cart, new Map([['tea', 2n]])]], { surface });
    expect(await visitor.fork().run([['get', cart]], { surface })).toEqual([new Map([['tea', 2n]])]);
    // A change in place is saved if the request also sets something.
    await visitor.run(
      [
        ['change', cart, ['milk'], 1n],
        ['set', 'seen', new Date(index)],
      ],
      { surface },
    );
    const after = new Map([
      ['tea', 2n],
      ['milk', 1n],
    ]);
    expect(
      await visitor.run(
        [
          ['get', cart],
          ['get', 'seen'],
        ],
        { surface },
      ),
    ).toEqual([after, new Date(index)]);
  }
  expect(await createVisitor(shop.url).run([['keys']])).toEqual([[]]);

  await visitor.run([['set', 'flash', 'Thank you']]);
  expect((await visitor.fetch('/flash')).body).toContain('Thank you');
  expect((await visitor.fetch('/flash')).body).toContain('Nothing new');

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
  await expect.poll(() => visitor.run([['get', 'code']])).toEqual([undefined]);

  const signedIn = visitor.fork();
  const name = `late ${crypto.randomUUID()}`;
  const gate = shop.gate?.(name);
  const late = signedIn.fork().run([['get', 'user'], gate ? ['wait', name] : ['jitter', 200], ['set', 'cart:late', 1]]);
  await gate?.arrived();
  await visitor.run([['destroy']]);
  await gate?.open();
  await late;
  expect(visitor.sessionId()).toBeUndefined();
  expect(await signedIn.run([['keys']])).toEqual([[]]);
}
