import { once } from 'node:events';
import { createSessions } from '@coatcheck/session-core';
import {
  defineDriver,
  packRecord,
  recordKey,
  valueStore,
  type Fields,
  type SharedOptions,
  type SessionDriver,
} from '@coatcheck/session-core/driver';
import redisRuntime from '@coatcheck/session-redis/runtime';
import fc from 'fast-check';
import { Redis } from 'ioredis';
import { fieldName } from '../../packages/session-core/src/codec/field.ts';
import { sessionKey } from '../../packages/session-core/test/support/values.ts';
import { redisUrl } from '../support/redis-server.ts';
import { cut, damage, corrupt, flatten, hydrate, junk, rarely, session, unflattenText, type Entry } from './damage.ts';
import { assert, attempt, property, SECRET, type Target } from './target.ts';

const ID = `33333333-3333-4333-8333-${SECRET}`;
const OTHER = `44444444-4444-4444-8444-${SECRET}`;

/** Fields as they are stored: those that are whole, and one that may not be. */
const stored = fc
  .tuple(
    session,
    fc.array(damage, { maxLength: 2 }),
    rarely(cut, 4),
    rarely(
      fc.oneof(
        sessionKey.map(fieldName),
        fc.constantFrom('', '"', '"\\ud800', '"x"', '"1"x', '"__proto__"', '{', '\0'),
      ),
      3,
    ),
    rarely(fc.constantFrom('-1', '-', '00', '99999999999999999999', 'x', '1.5', '1e3', '', ' 1'), 3),
    rarely(junk, 6),
  )
  .map(([make, damages, cutBody, name, expires, instead]) => {
    const [first, ...rest] = [...make()].map(([key, { data }]): [string, string] => [
      fieldName(key),
      JSON.stringify(JSON.parse(flatten(data))),
    ]);
    const body = instead === undefined ? corrupt(first![1], damages) : JSON.stringify(instead);
    const whole = new Map(rest.map(([key, text]) => [key, `:${text}`]));
    const bad: [string, string] = [name ?? first![0], `${expires ?? ''}:${cutBody?.(body) ?? body}`];
    return { whole, bad };
  });

interface Stored {
  whole: Fields;
  bad: [name: string, field: string];
}

const moment = fc.constantFrom(Infinity, 4_000_000_000_000, Date.now() + 10_000_000, 0, -1);

/** Whole values in a backend that knows nothing else, and what may have become of them. */
export const records: Target = {
  name: 'records',
  cases: 150_000,
  casesInTests: 500,
  open() {
    let values = new Map<string, { value: string; version: number }>();
    let versions = 0;
    const driverOver = (compareAndSet: boolean): SessionDriver =>
      defineDriver<SharedOptions>({
        name: `session-fuzz-${compareAndSet ? 'atomic' : 'plain'}`,
        options: {},
        open: () =>
          valueStore({
            compareAndSet,
            async get(key) {
              return values.get(key) ?? null;
            },
            async set(key, value, { version }) {
              if (compareAndSet && (values.get(key)?.version ?? null) !== version) return false;
              values.set(key, { value, version: ++versions });
              return true;
            },
            async remove(key) {
              values.delete(key);
            },
          }),
      })({});

    return {
      property: property(
        fc.record({
          stored,
          isAtomic: fc.boolean(),
          expires: moment,
          idleUntil: moment,
          cuts: rarely(fc.array(cut, { minLength: 1, maxLength: 2 }), 2),
          tombstone: rarely(
            fc.oneof(fc.constantFrom('retired ', 'retired x', 'retired 0', 'retired 9e15'), fc.string()),
            20,
          ),
        }),
        async ({ stored: fields, isAtomic, expires, idleUntil, cuts, tombstone }) => {
          const driver = driverOver(isAtomic);
          values = new Map();
          await driver.setItem(OTHER, flatten(new Map([['who', { data: OTHER, expires: undefined }]])));
          let value = packRecord({ fields: new Map([...fields.whole, fields.bad]), expires, idleUntil });
          const isCut = cuts !== undefined;
          for (const apply of cuts ?? []) value = apply(value);
          values.set(await recordKey(ID), { value, version: ++versions });
          if (tombstone !== undefined) {
            values.set((await recordKey(ID)) + (isAtomic ? '' : '.retired'), { value: tombstone, version: ++versions });
          }
          const isLive = Math.min(expires, idleUntil) > Date.now() && !isCut && tombstone === undefined;
          await check(driver, fields, isLive, value);
        },
      ),
    };
  },
};

/** The same in a real Redis, where a session is a hash. */
export const redis: Target = {
  name: 'redis',
  cases: 5000,
  casesInTests: 200,
  async open() {
    const url = await redisUrl();
    const prefix = `fuzz-${crypto.randomUUID()}:`;
    const client = new Redis(url);
    await once(client, 'ready');
    const key = await recordKey(ID, prefix);
    const header = fc.oneof(
      { weight: 3, arbitrary: fc.constant('1:::1') },
      fc.constantFrom('1:retired', '1:0:0:0', '1:4000000000000::0', '2:::1', '', '1::', 'x', '1:-1::1', '1:9e99:1:1'),
      fc.constant(undefined),
    );
    const other = fc.constantFrom<[string, ...string[]]>(['SET', SECRET], ['RPUSH', SECRET], ['SADD', SECRET]);

    return {
      property: property(
        fc.record({ stored, header, other: rarely(other, 20), bytes: rarely(fc.uint8Array({ maxLength: 20 }), 8) }),
        async ({ stored: fields, header: head, other: foreign, bytes }) => {
          const driver = redisRuntime({ url, prefix });
          await client.del(key, await recordKey(OTHER, prefix));
          await driver.setItem(OTHER, flatten(new Map([['who', { data: OTHER, expires: undefined }]])));
          if (foreign) {
            await client.call(foreign[0], key, ...foreign.slice(1));
          } else {
            await client.hset(key, new Map(fields.whole));
            await client.hset(key, ...fields.bad);
            if (bytes) await client.hset(key, Buffer.from(bytes), Buffer.from(bytes));
            if (head !== undefined) await client.hset(key, '', head);
          }
          const isLive = !foreign && head === '1:::1' && !bytes;
          await check(driver, fields, isLive, [head, foreign]);
        },
      ),
      async close() {
        await client.del(key, await recordKey(OTHER, prefix));
        client.disconnect();
      },
    };
  },
};

/** What holds of a session whose record is corrupt, or not. */
async function check(driver: SessionDriver, { whole, bad }: Stored, isLive: boolean, found: unknown): Promise<void> {
  const sessions = createSessions({ driver });
  const open = (id: string) => sessions.open(`astro-session=${id}`);

  const entries = await attempt(() => open(ID).entries());
  const item = await attempt(() => driver.getItem(ID));
  assert(entries instanceof Error === item instanceof Error, 'It reads in one way, and not in the other.', found);
  if (entries instanceof Error) {
    assert((entries as { code?: string }).code === 'refused', 'The code.', entries);
    assert(!isLive || bad[0] === '', 'A corrupt field makes the whole session unreadable.', found);
    await attempt(() => driver.setItem(ID, flatten(new Map([['next', { data: 1, expires: undefined }]]))));
  } else {
    const held = item === null ? new Map<string, Entry>() : hydrate(item);
    const seen = new Map(entries.map(([key, value]) => [key, flatten(value)]));
    const unlike = [...held].find(([key, { data }]) => seen.get(key) !== flatten(data));
    assert(unlike === undefined, 'Astro and `Session` see different sessions.', [found, unlike]);
    for (const [name, field] of isLive && bad[0] !== '' ? whole : []) {
      const key = name.startsWith('"') ? (JSON.parse(name) as string) : name;
      if (name !== bad[0])
        assert(seen.get(key) === flatten(unflattenText(field.slice(1))), 'A field is lost.', [found, name]);
    }
    assert(!isLive || bad[0] === '' || item !== null, 'The session is lost.', found);
    const next = new Map(held).set('next', { data: 'next', expires: undefined });
    const written = await attempt(() => driver.setItem(ID, flatten(next)));
    assert(!(written instanceof Error), 'It reads, and cannot be written.', [found, written]);
    const again = await attempt(() => open(ID).get('next'));
    assert(again === 'next' || (item === null && again === undefined), 'What was written is not there.', [
      found,
      again,
    ]);
  }
  await attempt(() => driver.removeItem(ID));
  const [[key, other] = [], ...rest] = await open(OTHER).entries();
  assert(key === 'who' && other === OTHER && rest.length === 0, "Another visitor's session was changed.");
}
