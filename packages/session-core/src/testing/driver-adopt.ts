import { fail, same } from './assert.ts';
import { changed, DAY, payload, SECRET, values, type DriverTests } from './driver-suite.ts';

import { createSessionId } from '../engine/session-id.ts';

/** Sessions from before. */
export function testAdopt({ it, createDriver, formerDriver }: DriverTests): void {
  const day = Date.now() + DAY;
  /** Until when sessions from before are taken over in these tests. */
  const until = new Date(day).toISOString();

  it('sessions under another prefix, and those that are not sealed, are taken over', async () => {
    const id = createSessionId();
    await (await createDriver({ prefix: 'before:' })).setItem(id, payload({ user: 'ada', cart: ['hat'] }, day));
    const moved = { prefix: 'after:', secrets: [SECRET] };
    const adopting = { ...moved, adopt: { until, prefix: 'before:' } };
    const reads = await Promise.all(Array.from({ length: 4 }, async () => (await createDriver(adopting)).getItem(id)));
    for (const read of reads) same(values(read), { user: 'ada', cart: ['hat'] });
    same(await (await createDriver({ prefix: 'before:' })).getItem(id), null);
    same(values(await (await createDriver(moved)).getItem(id)), { user: 'ada', cart: ['hat'] });

    await (await createDriver({ prefix: 'plain:' })).setItem(id, payload({ user: 'grace' }, day));
    const sealing = { prefix: 'plain:', secrets: [SECRET] };
    same(values(await (await createDriver({ ...sealing, adopt: { until } })).getItem(id)), { user: 'grace' });
    same(values(await (await createDriver(sealing)).getItem(id)), { user: 'grace' });
  });

  it('a session that is removed before it is taken over stays removed', async () => {
    const id = createSessionId();
    await (await createDriver({ prefix: 'before:' })).setItem(id, payload({ user: 'ada' }, day));
    const adopting = await createDriver({ prefix: 'after:', adopt: { until, prefix: 'before:' } });
    await adopting.removeItem(id);
    same(await adopting.getItem(id), null);
    same(await (await createDriver({ prefix: 'before:' })).getItem(id), null);
  });

  if (formerDriver) {
    it("sessions of Astro's own driver are taken over, once, and gone from where they were", async () => {
      const former = await formerDriver();
      const adopting = await createDriver({ adopt: { until } });
      const id = createSessionId();
      await former.setItem(id, payload({ user: 'ada', cart: ['hat'] }, day));
      same(await (await createDriver({})).getItem(id), null);
      const [first, ...reads] = await Promise.all([
        adopting.getItem(id),
        ...Array.from({ length: 4 }, async () => (await createDriver({ adopt: { until } })).getItem(id)),
      ]);
      for (const read of [first, ...reads]) same(values(read), { user: 'ada', cart: ['hat'] });
      same((await former.getItem(id)) ?? null, null);
      await adopting.setItem(
        id,
        changed(first, (map) => map.delete('cart')),
      );
      same(values(await (await createDriver({})).getItem(id)), { user: 'ada' });
    });

    it("a session of Astro's own driver that is removed before it is taken over stays removed", async () => {
      const former = await formerDriver();
      const adopting = await createDriver({ adopt: { until } });
      const id = createSessionId();
      await former.setItem(id, payload({ user: 'ada' }, day));
      await adopting.removeItem(id);
      same((await former.getItem(id)) ?? null, null);
      await former.setItem(id, payload({ user: 'ada' }, day));
      same(await adopting.getItem(id), null);
    });

    it("what Astro's own driver left expired, or damaged, is no session", async () => {
      const former = await formerDriver();
      const adopting = await createDriver({ adopt: { until } });
      const [expired, damaged] = [createSessionId(), createSessionId()];
      await former.setItem(expired, payload({ user: 'ada' }, Date.now() - 1000));
      await former.setItem(damaged, 'no session');
      for (const id of [expired, damaged]) same(await adopting.getItem(id), null);
    });

    it("what Astro's own driver could not have left is neither read nor removed, whatever a cookie names", async () => {
      const former = await formerDriver();
      const adopting = await createDriver({ adopt: { until } });
      const [foreign, noUuid] = [createSessionId(), createSessionId().replaceAll('-', '_')];
      await former.setItem(foreign, 'no session');
      await former.setItem(noUuid, payload({ user: 'ada' }, day));
      for (const id of [foreign, noUuid]) {
        same(await adopting.getItem(id), null);
        await adopting.removeItem(id);
        if (((await former.getItem(id)) ?? null) === null) fail('what is no session was removed');
      }
    });
  }
}
