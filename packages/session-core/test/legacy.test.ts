import { channel } from 'node:diagnostics_channel';
import { createSessions, fromEnv } from '@coatcheck/session-core';
import { createError, defineDriver, recordKey, type SharedOptions } from '@coatcheck/session-core/driver';
import { memoryDriver } from '@coatcheck/session-memory';
import { stringify } from 'devalue';
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { openMemoryStore } from '../../session-memory/src/store.ts';
import { createBrowser } from './support/backend.ts';

const ID = '6b5c3f0e-1d2a-4c3b-8a49-0f1e2d3c4b5a';
const until = '2100-01-01';

const payload = (data: Record<string, unknown>): string =>
  stringify(new Map(Object.entries(data).map(([key, value]) => [key, { data: value, expires: undefined }])));

/** Starts a site on a backend that contains data of Astro's own driver and of other software. */
function startSite(before: Record<string, string> = {}) {
  const keyspace = new Map(Object.entries(before));
  const asked: string[] = [];
  const store = openMemoryStore({});
  const name = `session-legacy-${crypto.randomUUID()}`;
  const define = defineDriver<SharedOptions>({
    name,
    options: {},
    open: () => ({
      ...store,
      legacySessions: {
        read: async (id) => (asked.push(id), keyspace.get(id)),
        remove: async (id) => void keyspace.delete(id),
      },
    }),
  });
  const deploy = (options: SharedOptions, id = ID) =>
    createBrowser(createSessions({ driver: define(options) }), `astro-session=${id}`);
  return { name, store, keyspace, asked, deploy };
}

function listenFor(event: string): () => number {
  let heard = 0;
  const listener = (): void => void heard++;
  channel(`coatcheck:${event}`).subscribe(listener);
  onTestFinished(() => {
    channel(`coatcheck:${event}`).unsubscribe(listener);
  });
  return () => heard;
}

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
});

describe('the legacy key that a cookie names', () => {
  it.each(['feature_flags_production', 'a-key-of-somebody-else', ID.replace('-4c3b', '-1c3b')])(
    'is neither read nor removed when the id is not a UUID: %s',
    async (id) => {
      const site = startSite({ [id]: payload({ user: 'admin' }) });
      const user = site.deploy({ migrateFrom: { until } }, id);
      expect(await user.open().get('user')).toBeUndefined();
      await user.visit((session) => session.set('seen', 1));
      await site.deploy({ migrateFrom: { until } }, id).visit((session) => session.destroy());
      expect(site.asked).toEqual([]);
      expect(site.keyspace.has(id)).toBe(true);
    },
  );

  it.each(['{"enabled":true}', 'text', '', '[["Set",1],"a"]', '[1]'])(
    'is not changed when its value is not a session: %j',
    async (stored) => {
      const site = startSite({ [ID]: stored });
      const corrupt = listenFor('corrupt-field');
      const user = site.deploy({ migrateFrom: { until } });
      expect(await user.open().keys()).toEqual([]);
      await user.visit((session) => session.destroy());
      expect(user.cookie).toBeUndefined();
      expect(site.keyspace.get(ID)).toBe(stored);
      expect(corrupt()).toBeGreaterThan(0);
    },
  );

  it.each([
    ['a record', async (site: ReturnType<typeof startSite>) => site.deploy({}).visit((session) => session.load(ID))],
    [
      'a tombstone',
      async (site: ReturnType<typeof startSite>) => site.deploy({}).visit((session) => session.destroy()),
    ],
  ])(
    'is not changed when its value is not a session, even if there is %s under the new key',
    async (_what, prepare) => {
      const site = startSite({ [ID]: payload({ user: 'ada' }) });
      // Migrates the session.
      expect(await site.deploy({ migrateFrom: { until } }).open().get('user')).toBe('ada');
      expect(site.keyspace.has(ID)).toBe(false);
      await prepare(site);
      site.keyspace.set(ID, '{"enabled":true}');
      await site.deploy({ migrateFrom: { until } }).visit((session) => session.destroy());
      expect(site.keyspace.get(ID)).toBe('{"enabled":true}');
      site.keyspace.set(ID, payload({ user: 'ada' }));
      await site.deploy({ migrateFrom: { until } }).visit((session) => session.destroy());
      expect(site.keyspace.has(ID)).toBe(false);
      expect(await site.deploy({ migrateFrom: { until } }).open().get('user')).toBeUndefined();
    },
  );
});

it('an entry whose key is a number is left out, and the user stays signed in', async () => {
  const stored = '[["Map",1,2,4,5],7,{"data":3},"x","user",{"data":6},"ada"]';
  const site = startSite({ [ID]: stored });
  const corrupt = listenFor('corrupt-field');
  const user = site.deploy({ migrateFrom: { until } });
  expect(await user.open().entries()).toEqual([['user', 'ada']]);
  expect(corrupt()).toBe(1);
});

describe('the end date of a migration', () => {
  it('is required and must be a valid date', async () => {
    const wrong: [unknown, string][] = [
      [
        true,
        "`migrateFrom`: expected an object with the date on which it ends, such as { until: '2027-01-31' }, or false",
      ],
      [
        {},
        "`migrateFrom`: expected an object with the date on which it ends, such as { until: '2027-01-31' }, or false",
      ],
      [{ until: undefined }, '`migrateFrom`: expected an object with the date on which it ends'],
      [{ base: 'x' }, '`migrateFrom`: expected an object with the date on which it ends'],
      [{ until: 'soon' }, "`migrateFrom`: `until`: expected a date such as '2027-01-31'"],
      [{ until: '31.1.2027' }, "expected a date such as '2027-01-31'"],
      [{ until: '2027-02-31T25:00Z' }, "expected a date such as '2027-01-31'"],
      [{ until: '2027-02-29' }, "expected a date such as '2027-01-31'"],
      // Without a time zone.
      [{ until: '2027-01-31T08:00' }, "expected a date such as '2027-01-31'"],
      [{ until: 1_800_000_000 }, "expected a date such as '2027-01-31'"],
    ];
    for (const [migrateFrom, message] of wrong) {
      const reading = startSite()
        .deploy({ migrateFrom } as SharedOptions)
        .open()
        .get('user');
      await expect(reading).rejects.toMatchObject({ code: 'configuration', message: expect.stringContaining(message) });
    }
  });

  it('can be read from an environment variable, but `migrateFrom` as a whole cannot', () => {
    const config = (migrateFrom: unknown) => memoryDriver({ migrateFrom } as SharedOptions);
    expect(() => config({ until: fromEnv('MIGRATE_UNTIL') })).not.toThrow();
    expect(() => config(fromEnv('MIGRATE_FROM'))).toThrow(
      '`migrateFrom` cannot be read from an environment variable as a whole. Use fromEnv() for its parts.',
    );
  });

  it('ends the migration, and a warning is logged once', async () => {
    vi.useFakeTimers({ toFake: ['Date', 'performance'], now: Date.UTC(2030, 0, 1) });
    const warn = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    const other = '7b5c3f0e-1d2a-4c3b-8a49-0f1e2d3c4b5b';
    const site = startSite({ [ID]: payload({ user: 'ada' }), [other]: payload({ user: 'grace' }) });
    vi.stubEnv('MIGRATE_UNTIL', '2030-01-02');
    const options = { migrateFrom: { until: fromEnv('MIGRATE_UNTIL') } };
    expect(await site.deploy(options).open().get('user')).toBe('ada');
    expect(warn).not.toHaveBeenCalled();
    vi.advanceTimersByTime(24 * 3_600_000);
    site.asked.length = 0;
    for (let again = 0; again < 2; again++)
      expect(await site.deploy(options, other).open().get('user')).toBeUndefined();
    await site.deploy(options, other).visit((session) => session.destroy());
    expect(site.asked).toEqual([]);
    expect(site.keyspace.has(other)).toBe(true);
    expect(warn.mock.calls).toEqual([
      [
        expect.stringMatching(
          `^\\[${site.name}\\] The migration ended on 2030-01-02, the \`until\` of \`migrateFrom\`\\. Remove the option`,
        ),
      ],
    ]);
    // Migrated sessions stay.
    expect(await site.deploy({}).open().get('user')).toBe('ada');
  });

  it('also ends the migration of plaintext fields to encrypted ones', async () => {
    vi.useFakeTimers({ toFake: ['Date', 'performance'], now: Date.UTC(2030, 0, 1) });
    vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    const site = startSite();
    const secrets = ['yF3kq0Vn7bT2xW9sLr5dQh8mZc1aPu4eGj6o'];
    const plain = { set: new Map([['user', ':["ada"]']]), unset: [], lifetimeMs: 'never' as const, now: Date.now() };
    await site.store.patch(await recordKey(ID), plain, { signal: new AbortController().signal });
    vi.advanceTimersByTime(24 * 3_600_000);
    expect(
      await site
        .deploy({ secrets, migrateFrom: { until: '2030-01-02' } })
        .open()
        .get('user'),
    ).toBeUndefined();
    expect(
      await site
        .deploy({ secrets, migrateFrom: { until: '2030-01-03' } })
        .open()
        .get('user'),
    ).toBe('ada');
  });
});

it('a removal that fails after destroying the session is `interrupted` and not `unavailable`', async () => {
  const driver = defineDriver<SharedOptions>({
    name: 'session-half',
    options: {},
    open: () => ({
      ...openMemoryStore({}),
      legacySessions: {
        read: async () => payload({ user: 'ada' }),
        remove: async () => {
          throw createError('session-half', 'unavailable', 'Cannot connect. Nothing was sent.');
        },
      },
    }),
  })({ migrateFrom: { until } });
  await expect(driver.removeItem(ID)).rejects.toMatchObject({ code: 'interrupted', cause: { code: 'unavailable' } });
});
