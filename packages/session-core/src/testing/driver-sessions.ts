import { stringify } from 'devalue';
import { rejects, same } from './assert.ts';
import { changed, DAY, entry, payload, values, type DriverTests } from './driver-suite.ts';
import { check } from '../engine/check.ts';

import { createSessionId } from '../engine/session-id.ts';

/** Tests of what Astro does with sessions. */
export function testSessions({ it, createDriver }: DriverTests): void {
  const day = Date.now() + DAY;

  it('a session that Astro stores can be read back', async () => {
    const driver = await createDriver({});
    const id = createSessionId();
    same(await driver.getItem(id), null);
    const session = { cart: ['hat'], 'user name': { name: 'Ünal 🧥' }, 'odd \0 \uD800': '\0 \uD800' };
    await driver.setItem(id, payload(session, day));
    same(values(await driver.getItem(id)), session);
  });

  it('concurrent requests that change different keys do not overwrite each other', async () => {
    const driver = await createDriver({});
    const id = createSessionId();
    await driver.setItem(id, payload({ kept: 1, gone: 1 }, day));
    const requests = await Promise.all(Array.from({ length: 16 }, () => driver.getItem(id)));
    await Promise.all(
      requests.map((read, index) =>
        driver.setItem(
          id,
          changed(read, (map) => map.set(`key${index}`, entry(index, day))),
        ),
      ),
    );
    const expected = Object.fromEntries([
      ['kept', 1],
      ['gone', 1],
      ...requests.map((_, index) => [`key${index}`, index]),
    ]);
    same(values(await driver.getItem(id)), expected);
    const read = await driver.getItem(id);
    await driver.setItem(
      id,
      changed(read, (map) => map.delete('gone')),
    );
    same('gone' in values(await driver.getItem(id)), false);
  });

  it('a destroyed session stays destroyed', async () => {
    const driver = await createDriver({});
    const id = createSessionId();
    await driver.setItem(id, payload({ user: 'ada' }, day));
    const read = await driver.getItem(id);
    await driver.removeItem(id);
    await driver.setItem(
      id,
      changed(read, (map) => map.set('late', entry(1, day))),
    );
    same(await driver.getItem(id), null);
  });

  it('an expired entry is not returned', async () => {
    const driver = await createDriver({});
    const id = createSessionId();
    const entries = new Map([
      ['past', entry(1, Date.now() - 1000)],
      ['alive', entry(2, day)],
    ]);
    await driver.setItem(id, stringify(entries));
    same(values(await driver.getItem(id)), { alive: 2 });
  });

  it('a ttl that is no whole number of milliseconds, or longer than any date, is as good as any other', async () => {
    for (const ttl of [86_400 / 7, 16.1, 1e300]) {
      const driver = await createDriver({ ttl });
      const id = createSessionId();
      await driver.setItem(id, payload({ user: 'ada' }, undefined));
      same(values(await driver.getItem(id)), { user: 'ada' });
    }
  });

  it('sites with different prefixes do not see each other', async () => {
    const [one, other] = [await createDriver({ prefix: 'one:' }), await createDriver({ prefix: 'other:' })];
    const id = createSessionId();
    await one.setItem(id, payload({ site: 1 }, day));
    same(await other.getItem(id), null);
    await other.setItem(id, payload({ site: 2 }, day));
    await other.removeItem(id);
    same(values(await one.getItem(id)), { site: 1 });
  });

  it('an invalid session id reads as null, cannot be written, and can be removed without an error', async () => {
    const driver = await createDriver({});
    for (const id of [
      '',
      'short',
      '../../etc/passwd-and-more',
      'x'.repeat(129),
      'with space in the middle',
      'äöüäöüäöüäöüäöüäöü',
    ]) {
      same(await driver.getItem(id), null);
      await rejects(driver.setItem(id, payload({ a: 1 }, day)));
      await driver.removeItem(id);
    }
  });

  it('check() reports that everything works', async () => {
    const { ok, steps } = await check(await createDriver({}));
    same(
      [ok, ...steps.map(({ name, error }) => `${name} ${error ?? 'works'}`)],
      [true, 'connect works', 'write works', 'read works', 'remove works'],
    );
  });
}
