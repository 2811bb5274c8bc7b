import { fail, same } from './assert.ts';
import { changed, DAY, payload, SECRET, values, type DriverTests } from './driver-suite.ts';

import { createSessionId } from '../engine/session-id.ts';

/** Tests of the migration of legacy sessions. */
export function testMigration({ it, createDriver, legacyDriver }: DriverTests): void {
  const day = Date.now() + DAY;
  /** The end of the migration in these tests. */
  const until = new Date(day).toISOString();

  it('sessions under another prefix and plaintext sessions are migrated', async () => {
    const id = createSessionId();
    await (await createDriver({ prefix: 'before:' })).setItem(id, payload({ user: 'ada', cart: ['hat'] }, day));
    const moved = { prefix: 'after:', secrets: [SECRET] };
    const migrating = { ...moved, migrateFrom: { until, prefix: 'before:' } };
    const reads = await Promise.all(Array.from({ length: 4 }, async () => (await createDriver(migrating)).getItem(id)));
    for (const read of reads) same(values(read), { user: 'ada', cart: ['hat'] });
    same(await (await createDriver({ prefix: 'before:' })).getItem(id), null);
    same(values(await (await createDriver(moved)).getItem(id)), { user: 'ada', cart: ['hat'] });

    await (await createDriver({ prefix: 'plain:' })).setItem(id, payload({ user: 'grace' }, day));
    const encrypting = { prefix: 'plain:', secrets: [SECRET] };
    same(values(await (await createDriver({ ...encrypting, migrateFrom: { until } })).getItem(id)), { user: 'grace' });
    same(values(await (await createDriver(encrypting)).getItem(id)), { user: 'grace' });
  });

  it('a session that is destroyed before it is migrated stays destroyed', async () => {
    const id = createSessionId();
    await (await createDriver({ prefix: 'before:' })).setItem(id, payload({ user: 'ada' }, day));
    const migrating = await createDriver({ prefix: 'after:', migrateFrom: { until, prefix: 'before:' } });
    await migrating.removeItem(id);
    same(await migrating.getItem(id), null);
    same(await (await createDriver({ prefix: 'before:' })).getItem(id), null);
  });

  if (legacyDriver) {
    it("sessions of Astro's own driver are migrated once, and removed from their old place", async () => {
      const legacy = await legacyDriver();
      const migrating = await createDriver({ migrateFrom: { until } });
      const id = createSessionId();
      await legacy.setItem(id, payload({ user: 'ada', cart: ['hat'] }, day));
      same(await (await createDriver({})).getItem(id), null);
      const [first, ...reads] = await Promise.all([
        migrating.getItem(id),
        ...Array.from({ length: 4 }, async () => (await createDriver({ migrateFrom: { until } })).getItem(id)),
      ]);
      for (const read of [first, ...reads]) same(values(read), { user: 'ada', cart: ['hat'] });
      same((await legacy.getItem(id)) ?? null, null);
      await migrating.setItem(
        id,
        changed(first, (map) => map.delete('cart')),
      );
      same(values(await (await createDriver({})).getItem(id)), { user: 'ada' });
    });

    it("a session of Astro's own driver that is destroyed before it is migrated stays destroyed", async () => {
      const legacy = await legacyDriver();
      const migrating = await createDriver({ migrateFrom: { until } });
      const id = createSessionId();
      await legacy.setItem(id, payload({ user: 'ada' }, day));
      await migrating.removeItem(id);
      same((await legacy.getItem(id)) ?? null, null);
      await legacy.setItem(id, payload({ user: 'ada' }, day));
      same(await migrating.getItem(id), null);
    });

    it("expired and corrupt sessions of Astro's own driver are not migrated", async () => {
      const legacy = await legacyDriver();
      const migrating = await createDriver({ migrateFrom: { until } });
      const [expired, corrupt] = [createSessionId(), createSessionId()];
      await legacy.setItem(expired, payload({ user: 'ada' }, Date.now() - 1000));
      await legacy.setItem(corrupt, 'no session');
      for (const id of [expired, corrupt]) same(await migrating.getItem(id), null);
    });

    it("values that Astro's own driver could not have written are neither read nor removed", async () => {
      const legacy = await legacyDriver();
      const migrating = await createDriver({ migrateFrom: { until } });
      const [foreign, noUuid] = [createSessionId(), createSessionId().replaceAll('-', '_')];
      await legacy.setItem(foreign, 'no session');
      await legacy.setItem(noUuid, payload({ user: 'ada' }, day));
      for (const id of [foreign, noUuid]) {
        same(await migrating.getItem(id), null);
        await migrating.removeItem(id);
        if (((await legacy.getItem(id)) ?? null) === null) fail('a value that is not a session was removed');
      }
    });
  }
}
