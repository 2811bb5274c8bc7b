import { parse, stringify } from 'devalue';
import { check } from './check.ts';
import { createSessionId } from './ids.ts';
import type { SharedOptions } from './options.ts';
import type { Change, Fields, SessionStore, StoreCall } from './store.ts';
import type { SessionDriver } from './types.ts';

/** The `it` or `test` of any test runner: this suite imports none. */
export type It = (name: string, run: () => Promise<void>) => unknown;

export interface StoreSuite {
  it: It;
  /** Makes a store on the one backend under test. Called once a test; twice where a test plays two processes. */
  createStore(): SessionStore | Promise<SessionStore>;
  /**
   * How long what should be gone may still be there, in milliseconds: the backend's own coarseness. Default: 250. Records live for a
   * multiple of it in these tests.
   */
  slackMs?: number;
  /** Lets time pass. Default: waits for real; a suite with a fake clock moves it. */
  passTime?(ms: number): Promise<unknown>;
}

export interface DriverSuite {
  it: It;
  /** The `runtime` of a package, on the one backend under test. */
  createDriver(config: SharedOptions): SessionDriver | Promise<SessionDriver>;
  /** Everything that the backend holds, keys included, as text that shows whatever it would show a thief. */
  dump?(): Promise<string>;
  /** Astro's own driver for the backend, where it has one. */
  formerDriver?(): SessionDriver | Promise<SessionDriver>;
}

const HOUR = 3_600_000;
/** Until when sessions from before are taken over in these tests. */
const TOMORROW = new Date(Date.now() + 24 * HOUR).toISOString();

/**
 * What every store must do (`SessionStore` says why). A store that is not atomic runs the same tests; where it can promise less, the
 * expectation says so, and nothing is skipped.
 */
export function testStore({ it, createStore, slackMs = 250, passTime = wait }: StoreSuite): void {
  const short = slackMs * 2;

  const test = (name: string, run: (store: SessionStore, key: string) => Promise<void>): void => {
    it(name, async () => {
      const store = await createStore();
      try {
        await run(store, newKey());
      } finally {
        await store.close?.();
      }
    });
  };

  /** Waits until the record is gone, and no longer than the backend may take. */
  const gone = async (store: SessionStore, key: string): Promise<void> => {
    const deadline = Date.now() + slackMs * 4 + 1000;
    while ((await store.read(key, call())) !== null) {
      if (Date.now() > deadline) fail('the record is still there after its lifetime');
      await passTime(Math.ceil(slackMs / 10));
    }
  };

  test('a key that was never written reads as null', async (store, key) => {
    same(await store.read(key, call()), null);
  });

  test('fields come back byte for byte, whatever their names and values', async (store, key) => {
    const fields: Fields = new Map([
      ['cart', ':[{"hat":1},2]'],
      ['__proto__', ':["a"]'],
      ['constructor', ':1'],
      ['with space\n\t\u0001 and "quotes" \\ 🧥 é 漢', ':["\u2028 \u0001 🧥 é 漢"]'],
      ['0', ':[0]'],
      ['length', `:["${'x'.repeat(100_000)}"]`],
    ]);
    same(await store.patch(key, change({ set: fields }), call()), 'applied');
    same(await store.read(key, call()), fields);
  });

  test('a change of some fields leaves the others alone', async (store, key) => {
    await store.patch(
      key,
      change({
        set: new Map([
          ['a', ':1'],
          ['b', ':2'],
          ['c', ':3'],
        ]),
      }),
      call(),
    );
    await store.patch(key, change({ set: new Map([['b', ':4']]), unset: ['c', 'unknown'] }), call());
    same(
      await store.read(key, call()),
      new Map([
        ['a', ':1'],
        ['b', ':4'],
      ]),
    );
  });

  test('a record without fields is a record', async (store, key) => {
    await store.patch(key, change({ set: new Map([['a', ':1']]) }), call());
    await store.patch(key, change({ unset: ['a'] }), call());
    same(await store.read(key, call()), new Map());
    same(await store.patch(key, change({ set: new Map([['b', ':1']]), mustExist: true }), call()), 'applied');
  });

  test('what a reader does to its fields changes nothing for others', async (store, key) => {
    await store.patch(key, change({ set: new Map([['a', ':1']]) }), call());
    (await store.read(key, call()))?.clear();
    same(await store.read(key, call()), new Map([['a', ':1']]));
  });

  test('`mustExist` refuses where there is no record', async (store, key) => {
    same(await store.patch(key, change({ set: new Map([['a', ':1']]), mustExist: true }), call()), 'missing');
    same(await store.read(key, call()), null);
  });

  test('`mustBeNew` refuses where there is a record', async (store, key) => {
    const attempt = (value: string) =>
      store.patch(key, change({ set: new Map([['a', value]]), mustBeNew: true }), call());
    same(await attempt(':1'), 'applied');
    same(await attempt(':2'), 'conflict');
    same(await store.read(key, call()), new Map([['a', ':1']]));
    await store.retire(key, HOUR, call());
    same(await attempt(':3'), 'retired');
  });

  test('`expect` refuses the whole change unless every field is as expected', async (store, key) => {
    await store.patch(key, change({ set: new Map([['a', ':1']]) }), call());
    const attempt = (expect: [string, string | null][], value: string) =>
      store.patch(key, change({ set: new Map([['a', value]]), unset: ['b'], expect: new Map(expect) }), call());
    same(await attempt([['a', ':2']], ':9'), 'conflict');
    same(await attempt([['a', null]], ':9'), 'conflict');
    same(
      await attempt(
        [
          ['a', ':1'],
          ['b', ':1'],
        ],
        ':9',
      ),
      'conflict',
    );
    same(await store.read(key, call()), new Map([['a', ':1']]));
    same(
      await attempt(
        [
          ['a', ':1'],
          ['b', null],
        ],
        ':2',
      ),
      'applied',
    );
    same(await store.read(key, call()), new Map([['a', ':2']]));
  });

  test('`ifAbsent` writes only what is not there', async (store, key) => {
    await store.patch(key, change({ set: new Map([['a', ':1']]) }), call());
    const ifAbsent: Fields = new Map([
      ['a', ':8'],
      ['b', ':8'],
      ['c', ':8'],
    ]);
    await store.patch(key, change({ set: new Map([['c', ':2']]), ifAbsent }), call());
    same(
      await store.read(key, call()),
      new Map([
        ['a', ':1'],
        ['b', ':8'],
        ['c', ':2'],
      ]),
    );
  });

  test('`purge` removes what has expired and leaves what was renewed', async (store, key) => {
    const now = Date.now();
    const fields: Fields = new Map([
      ['old', `${now - 10}:1`],
      ['renewed', `${now + HOUR}:1`],
      ['open', ':1'],
    ]);
    await store.patch(key, change({ set: fields }), call());
    await store.patch(key, change({ purge: ['old', 'renewed', 'open', 'unknown'], now }), call());
    fields.delete('old');
    same(await store.read(key, call()), fields);
  });

  test('retiring returns what the record held, and refuses every change afterwards', async (store, key) => {
    await store.patch(key, change({ set: new Map([['a', ':1']]) }), call());
    same(await store.retire(key, HOUR, call()), new Map([['a', ':1']]));
    same(await store.read(key, call()), null);
    same(await store.patch(key, change({ set: new Map([['a', ':2']]) }), call()), 'retired');
    same(await store.patch(key, change({ set: new Map([['a', ':2']]), mustExist: true }), call()), 'retired');
    same(await store.read(key, call()), null);
    same(await store.retire(key, HOUR, call()), 'retired');
  });

  test('a key without a record can be retired, and refuses changes too', async (store, key) => {
    same(await store.retire(key, HOUR, call()), null);
    same(await store.patch(key, change({ set: new Map([['a', ':1']]) }), call()), 'retired');
    same(await store.read(key, call()), null);
  });

  test('a retired key is free again when its time is over', async (store, key) => {
    await store.retire(key, short, call());
    await passTime(short);
    const deadline = Date.now() + slackMs * 4 + 1000;
    while ((await store.patch(key, change({ set: new Map([['a', ':1']]) }), call())) === 'retired') {
      if (Date.now() > deadline) fail('the key is still retired');
      await passTime(Math.ceil(slackMs / 10));
    }
    same(await store.read(key, call()), new Map([['a', ':1']]));
  });

  for (const [clockName, offset] of [
    ['', 0],
    [', with an app clock two hours behind', -2 * HOUR],
    [', with one two hours ahead', 2 * HOUR],
  ] as const) {
    test(`a record lives as long as its longest-lived field${clockName}`, async (store, key) => {
      const now = Date.now() + offset;
      await store.patch(key, change({ set: new Map([['long', `${now + HOUR}:1`]]), lifetimeMs: HOUR, now }), call());
      await store.patch(key, change({ set: new Map([['short', `${now + short}:1`]]), lifetimeMs: short, now }), call());
      await passTime(short + slackMs);
      same((await store.read(key, call()))?.get('long'), `${now + HOUR}:1`);
      const later = Date.now() + offset;
      await store.patch(
        key,
        change({ set: new Map([['long', `${later + short}:2`]]), lifetimeMs: short, now: later }),
        call(),
      );
      await gone(store, key);
    });

    test(`a record whose only field expires is gone${clockName}`, async (store, key) => {
      const now = Date.now() + offset;
      await store.patch(key, change({ set: new Map([['a', `${now + short}:1`]]), lifetimeMs: short, now }), call());
      await gone(store, key);
      same(await store.patch(key, change({ set: new Map([['a', ':1']]), mustExist: true }), call()), 'missing');
    });
  }

  test('removing the longest-lived field shortens the life of the record', async (store, key) => {
    const now = Date.now();
    const set: Fields = new Map([
      ['long', `${now + HOUR}:1`],
      ['short', `${now + short}:1`],
    ]);
    await store.patch(key, change({ set, lifetimeMs: HOUR, now }), call());
    await store.patch(key, change({ unset: ['long'], lifetimeMs: short, now }), call());
    await gone(store, key);
  });

  test('a field without an expiry keeps the record for `capMs` after the last write, whichever field that wrote', async (store, key) => {
    await store.patch(key, change({ set: new Map([['open', ':1']]), lifetimeMs: short, capMs: short }), call());
    const now = Date.now();
    const set: Fields = new Map([['other', `${now + 1}:1`]]);
    await store.patch(key, change({ set, lifetimeMs: 1, capMs: HOUR, now }), call());
    await passTime(short + slackMs);
    same((await store.read(key, call()))?.get('open'), ':1');
    await store.patch(key, change({ unset: ['open', 'other'], lifetimeMs: short, capMs: HOUR }), call());
    await gone(store, key);
  });

  test('a record that was to live for ever ends when the writer says so', async (store, key) => {
    await store.patch(key, change({ set: new Map([['a', ':1']]), lifetimeMs: 'never' }), call());
    await passTime(slackMs);
    same(await store.read(key, call()), new Map([['a', ':1']]));
    await store.patch(key, change({ set: new Map([['b', ':1']]), lifetimeMs: short, capMs: short }), call());
    await gone(store, key);
  });

  test('what is past when it is written is not there', async (store, key) => {
    await store.patch(key, change({ set: new Map([['a', `${Date.now()}:1`]]), lifetimeMs: 0 }), call());
    await gone(store, key);
  });

  test('an idle record goes, a touched one stays until its hard deadline', async (store, key) => {
    const now = Date.now();
    const set: Fields = new Map([['a', `${now + HOUR}:1`]]);
    if (!store.atomic) {
      // Extending by reading would bring records back that another process removed: refused, never ignored.
      await rejects(store.read(key, { ...call(), touchMs: short }));
      return;
    }
    await store.patch(key, change({ set, lifetimeMs: HOUR, idleMs: short, now }), call());
    for (let round = 0; round < 3; round++) {
      await passTime(short / 2);
      same(await store.read(key, { ...call(), touchMs: short }), set);
    }
    await gone(store, key);

    const ending: Fields = new Map([['a', `${Date.now() + short}:1`]]);
    await store.patch(key, change({ set: ending, lifetimeMs: short, idleMs: HOUR }), call());
    same(await store.read(key, { ...call(), touchMs: HOUR }), ending);
    await gone(store, key);
  });

  it('64 writers at once lose nothing', async () => {
    const key = newKey();
    const stores = [await createStore(), await createStore()] as const;
    // Without atomic changes that holds within one process.
    const [one, other] = stores[0].atomic ? stores : [stores[0], stores[0]];
    const names = Array.from({ length: 64 }, (_, index) => `field-${index}`);
    await Promise.all(
      names.map((name, index) =>
        (index % 2 ? one : other).patch(key, change({ set: new Map([[name, ':1']]) }), call()),
      ),
    );
    same(await one.read(key, call()), new Map(names.map((name) => [name, ':1'])));
    for (const store of stores) await store.close?.();
  });

  it('of many who expect the same value one is right', async () => {
    const key = newKey();
    const stores = [await createStore(), await createStore()] as const;
    const [one, other] = stores[0].atomic ? stores : [stores[0], stores[0]];
    await one.patch(key, change({ set: new Map([['count', ':0']]) }), call());
    const results = await Promise.all(
      Array.from({ length: 16 }, (_, index) => {
        const expect = new Map([['count', ':0']]);
        return (index % 2 ? one : other).patch(
          key,
          change({ set: new Map([['count', `:${index}1`]]), expect }),
          call(),
        );
      }),
    );
    same(results.filter((result) => result === 'applied').length, 1);
    same(results.filter((result) => result === 'conflict').length, 15);
    for (const store of stores) await store.close?.();
  });

  it('writers that race a removal do not bring the record back', async () => {
    const key = newKey();
    const stores = [await createStore(), await createStore()] as const;
    const [one, other] = stores[0].atomic ? stores : [stores[0], stores[0]];
    await one.patch(key, change({ set: new Map([['a', ':1']]) }), call());
    const writers = Array.from({ length: 16 }, (_, index) => (index % 2 ? one : other)).map((store, index) =>
      store.patch(key, change({ set: new Map([[`b${index}`, ':1']]) }), call()),
    );
    await Promise.all([...writers, one.retire(key, HOUR, call())]);
    same(await one.read(key, call()), null);
    same(await other.patch(key, change({ set: new Map([['a', ':1']]) }), call()), 'retired');
    for (const store of stores) await store.close?.();
  });
}

/** What every driver must do, played as Astro plays it. */
export function testDriver({ it, createDriver, dump, formerDriver }: DriverSuite): void {
  const day = Date.now() + 24 * HOUR;

  it('a session that Astro stores comes back', async () => {
    const driver = await createDriver({});
    const id = createSessionId();
    same(await driver.getItem(id), null);
    const session = { cart: ['hat'], 'user name': { name: 'Ünal 🧥' }, 'odd \0 \uD800': '\0 \uD800' };
    await driver.setItem(id, payload(session, day));
    same(values(await driver.getItem(id)), session);
  });

  it('requests that change different keys do not erase each other', async () => {
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

  it('a removed session stays removed', async () => {
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

  it('an entry that has expired is not handed out', async () => {
    const driver = await createDriver({});
    const id = createSessionId();
    const entries = new Map([
      ['past', entry(1, Date.now() - 1000)],
      ['alive', entry(2, day)],
    ]);
    await driver.setItem(id, stringify(entries));
    same(values(await driver.getItem(id)), { alive: 2 });
  });

  it('sites under different prefixes do not see each other', async () => {
    const [one, other] = [await createDriver({ prefix: 'one:' }), await createDriver({ prefix: 'other:' })];
    const id = createSessionId();
    await one.setItem(id, payload({ site: 1 }, day));
    same(await other.getItem(id), null);
    await other.setItem(id, payload({ site: 2 }, day));
    await other.removeItem(id);
    same(values(await one.getItem(id)), { site: 1 });
  });

  it('an id that cannot be ours reads as null, cannot be written, and has nothing to remove', async () => {
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

  it('check() finds nothing wrong, and leaves nothing', async () => {
    const { ok, steps } = await check(await createDriver({}));
    same(
      [ok, ...steps.map(({ name, error }) => `${name} ${error ?? 'works'}`)],
      [true, 'connect works', 'write works', 'read works', 'remove works'],
    );
  });

  const secret = 'a-secret-of-the-conformance-suite-42';

  it('what is sealed comes back to whoever has the secret, and to nobody else', async () => {
    const sealing = await createDriver({ secrets: [secret] });
    const id = createSessionId();
    await sealing.setItem(id, payload({ user: { name: 'ada' }, cart: ['hat'] }, day));
    same(values(await sealing.getItem(id)), { user: { name: 'ada' }, cart: ['hat'] });
    await sealing.setItem(
      id,
      changed(await sealing.getItem(id), (map) => map.set('cart', entry([], day))),
    );
    same(values(await (await createDriver({ secrets: [secret] })).getItem(id)), { user: { name: 'ada' }, cart: [] });
    for (const secrets of [undefined, [secret.toUpperCase()]]) {
      same(values(await (await createDriver({ secrets })).getItem(id)), {});
    }
  });

  it('when secrets change nobody is signed out', async () => {
    const next = secret.toUpperCase();
    const [before, between, after] = [
      await createDriver({ secrets: [secret] }),
      await createDriver({ secrets: [next, secret] }),
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
    same(values(await after.getItem(id)), { cart: [] });
  });

  it('sessions under another prefix, and those that are not sealed, are taken over', async () => {
    const id = createSessionId();
    await (await createDriver({ prefix: 'before:' })).setItem(id, payload({ user: 'ada', cart: ['hat'] }, day));
    const moved = { prefix: 'after:', secrets: [secret] };
    const adopting = { ...moved, adopt: { until: TOMORROW, prefix: 'before:' } };
    const reads = await Promise.all(Array.from({ length: 4 }, async () => (await createDriver(adopting)).getItem(id)));
    for (const read of reads) same(values(read), { user: 'ada', cart: ['hat'] });
    same(await (await createDriver({ prefix: 'before:' })).getItem(id), null);
    same(values(await (await createDriver(moved)).getItem(id)), { user: 'ada', cart: ['hat'] });

    await (await createDriver({ prefix: 'plain:' })).setItem(id, payload({ user: 'grace' }, day));
    const sealing = { prefix: 'plain:', secrets: [secret] };
    same(values(await (await createDriver({ ...sealing, adopt: { until: TOMORROW } })).getItem(id)), { user: 'grace' });
    same(values(await (await createDriver(sealing)).getItem(id)), { user: 'grace' });
  });

  it('a session that is removed before it is taken over stays removed', async () => {
    const id = createSessionId();
    await (await createDriver({ prefix: 'before:' })).setItem(id, payload({ user: 'ada' }, day));
    const adopting = await createDriver({ prefix: 'after:', adopt: { until: TOMORROW, prefix: 'before:' } });
    await adopting.removeItem(id);
    same(await adopting.getItem(id), null);
    same(await (await createDriver({ prefix: 'before:' })).getItem(id), null);
  });

  if (dump) {
    it('the backend holds no id, and of what is sealed neither keys nor values', async () => {
      const [id, other, key, value] = Array.from({ length: 4 }, createSessionId) as [string, string, string, string];
      const data = { [key]: value, another: { deep: [value] } };
      await (await createDriver({ prefix: 'legible:' })).setItem(other, payload(data, day));
      const legible = await dump();
      for (const text of [key, value]) {
        if (!legible.includes(text)) fail('the dump does not show what is stored legibly');
      }
      await (await createDriver({ prefix: 'legible:' })).removeItem(other);
      await (await createDriver({ secrets: [secret] })).setItem(id, payload(data, day));
      const sealed = await dump();
      for (const text of [id, other, key, value, secret]) {
        if (sealed.includes(text)) fail('the backend shows an id, or what is sealed');
      }
    });
  }

  if (formerDriver) {
    it("sessions of Astro's own driver are taken over, once, and gone from where they were", async () => {
      const former = await formerDriver();
      const adopting = await createDriver({ adopt: { until: TOMORROW } });
      const id = createSessionId();
      await former.setItem(id, payload({ user: 'ada', cart: ['hat'] }, day));
      same(await (await createDriver({})).getItem(id), null);
      const [first, ...reads] = await Promise.all([
        adopting.getItem(id),
        ...Array.from({ length: 4 }, async () => (await createDriver({ adopt: { until: TOMORROW } })).getItem(id)),
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
      const adopting = await createDriver({ adopt: { until: TOMORROW } });
      const id = createSessionId();
      await former.setItem(id, payload({ user: 'ada' }, day));
      await adopting.removeItem(id);
      same((await former.getItem(id)) ?? null, null);
      await former.setItem(id, payload({ user: 'ada' }, day));
      same(await adopting.getItem(id), null);
    });

    it("what Astro's own driver left expired, or damaged, is no session", async () => {
      const former = await formerDriver();
      const adopting = await createDriver({ adopt: { until: TOMORROW } });
      const [expired, damaged] = [createSessionId(), createSessionId()];
      await former.setItem(expired, payload({ user: 'ada' }, Date.now() - 1000));
      await former.setItem(damaged, 'no session');
      for (const id of [expired, damaged]) same(await adopting.getItem(id), null);
    });

    it("what Astro's own driver could not have left is neither read nor removed, whatever a cookie names", async () => {
      const former = await formerDriver();
      const adopting = await createDriver({ adopt: { until: TOMORROW } });
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

function newKey(): string {
  return `conformance:${createSessionId()}`;
}

function call(): StoreCall {
  return { signal: AbortSignal.timeout(30_000) };
}

function change(part: Partial<Change>): Change {
  const cap = part.lifetimeMs === 'never' ? {} : { capMs: HOUR };
  return { set: new Map(), unset: [], lifetimeMs: HOUR, now: Date.now(), ...cap, ...part };
}

interface Entry {
  data: unknown;
  expires: number;
}

function entry(data: unknown, expires: number): Entry {
  return { data, expires };
}

function payload(data: Record<string, unknown>, expires: number): string {
  return stringify(new Map(Object.entries(data).map(([key, value]) => [key, entry(value, expires)])));
}

function hydrate(read: unknown): Map<string, Entry> {
  if (read === null) fail('the session is not there');
  return parse(typeof read === 'string' ? read : JSON.stringify(read)) as Map<string, Entry>;
}

function values(read: unknown): Record<string, unknown> {
  return Object.fromEntries([...hydrate(read)].map(([key, { data }]) => [key, data]));
}

function changed(read: unknown, edit: (map: Map<string, Entry>) => unknown): string {
  const map = hydrate(read);
  edit(map);
  return stringify(map);
}

function same(actual: unknown, expected: unknown): void {
  const [left, right] = [show(actual), show(expected)];
  if (left !== right) fail(`expected ${right.slice(0, 500)}, got ${left.slice(0, 500)}`);
}

function show(value: unknown): string {
  if (value instanceof Map) return `Map ${show(Object.fromEntries(value))}`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'undefined';
  return JSON.stringify(Object.entries(value).toSorted(([left], [right]) => (left < right ? -1 : 1)));
}

async function rejects(promise: Promise<unknown>): Promise<void> {
  try {
    await promise;
  } catch {
    return;
  }
  fail('expected a rejection');
}

function fail(message: string): never {
  throw new Error(message);
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
