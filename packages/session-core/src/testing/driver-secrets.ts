import { fail, same } from './assert.ts';
import { changed, DAY, entry, payload, SECRET, values, type DriverTests } from './driver-suite.ts';

import { createSessionId } from '../engine/session-id.ts';

/** Tests of encryption at rest. */
export function testSecrets({ it, createDriver, dump }: DriverTests): void {
  const day = Date.now() + DAY;

  it('encrypted data can be read with the secret, and not without it', async () => {
    const encrypting = await createDriver({ secrets: [SECRET] });
    const id = createSessionId();
    await encrypting.setItem(id, payload({ user: { name: 'ada' }, cart: ['hat'] }, day));
    same(values(await encrypting.getItem(id)), { user: { name: 'ada' }, cart: ['hat'] });
    await encrypting.setItem(
      id,
      changed(await encrypting.getItem(id), (map) => map.set('cart', entry([], day))),
    );
    same(values(await (await createDriver({ secrets: [SECRET] })).getItem(id)), { user: { name: 'ada' }, cart: [] });
    for (const secrets of [undefined, [SECRET.toUpperCase()]]) {
      same(values(await (await createDriver({ secrets })).getItem(id)), {});
    }
  });

  it('rotating secrets signs nobody out', async () => {
    const next = SECRET.toUpperCase();
    const [before, between, after] = [
      await createDriver({ secrets: [SECRET] }),
      await createDriver({ secrets: [next, SECRET] }),
      await createDriver({ secrets: [next] }),
    ];
    const id = createSessionId();
    await before.setItem(id, payload({ user: 'ada', cart: ['hat'], flash: 'hello' }, day));
    const read = await between.getItem(id);
    same(values(read), { user: 'ada', cart: ['hat'], flash: 'hello' });
    await between.setItem(
      id,
      changed(read, (map) => map.set('cart', entry([], day)).delete('flash')),
    );
    same(values(await between.getItem(id)), { user: 'ada', cart: [] });
    // Reading alone encrypted the unchanged values again, with the new secret.
    same(values(await after.getItem(id)), { user: 'ada', cart: [] });
  });

  if (dump) {
    it('the backend stores no session ids, and no encrypted keys or values as plaintext', async () => {
      const [id, other, key, value] = Array.from({ length: 4 }, createSessionId) as [string, string, string, string];
      const data = { [key]: value, another: { deep: [value] } };
      await (await createDriver({ prefix: 'plaintext:' })).setItem(other, payload(data, day));
      const plaintext = await dump();
      for (const text of [key, value]) {
        if (!plaintext.includes(text)) fail('the dump does not show values that are stored as plaintext');
      }
      await (await createDriver({ prefix: 'plaintext:' })).removeItem(other);
      await (await createDriver({ secrets: [SECRET] })).setItem(id, payload(data, day));
      const encrypted = await dump();
      for (const text of [id, other, key, value, SECRET]) {
        if (encrypted.includes(text)) fail('the backend shows a session id, or encrypted data as plaintext');
      }
    });
  }
}
