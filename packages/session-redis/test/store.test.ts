import { tracingChannel } from 'node:diagnostics_channel';
import { inspect } from 'node:util';
import type { Fields } from '@coatcheck/session-core/driver';
import { afterAll, describe, expect, it } from 'vitest';
import { testOperations } from '@coatcheck/test-support/redis-operations';
import { startRedis } from '@coatcheck/test-support/redis-server';
import { call, change, newKey } from '@coatcheck/test-support/stores';
import { README_ACL } from './support/readme.ts';
import { eventually, openInspector, openStore } from './support/store.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

// A server of its own: its memory and its scripts are taken away from it.
const redis = await startRedis();
const store = openStore({ url: redis.url });
const inspector = openInspector(redis.url);
afterAll(async () => {
  await store.close?.();
  inspector.disconnect();
  await redis[Symbol.asyncDispose]();
});

/** The commands that clients sent while `work` ran, without what scripts did and what this test sends itself. */
async function commandsDuring(work: () => Promise<unknown>): Promise<string[]> {
  const monitor = await inspector.duplicate().monitor();
  const commands: string[] = [];
  monitor.on('monitor', (_time: string, args: string[], source: string) => {
    if (source !== 'lua') commands.push(args[0]!.toLowerCase());
  });
  await work();
  await inspector.echo('end');
  await eventually(() => commands.includes('echo'));
  monitor.disconnect();
  return commands.filter((name) => name !== 'echo');
}

describe('one operation is one command', () => {
  testOperations(store, inspector, commandsDuring, { byHash: 'evalsha', bySource: 'eval' });
});

describe('the lifetime of a key', () => {
  const day: Fields = new Map([['day', `${Date.now() + 24 * HOUR}:1`]]);

  /** What a key has left to live, to the minute. */
  const lifeOf = async (key: string): Promise<number> => Math.round((await inspector.pttl(key)) / MINUTE) * MINUTE;

  it('is that of the longest-lived field, whichever was written last', async () => {
    const key = newKey();
    await store.patch(key, change({ set: day }), call());
    expect(await lifeOf(key)).toBe(24 * HOUR);
    await store.patch(key, change({ set: new Map([['hour', `${Date.now() + HOUR}:1`]]) }), call());
    expect(await lifeOf(key)).toBe(24 * HOUR);
    await store.patch(key, change({ unset: ['day'] }), call());
    expect(await lifeOf(key)).toBe(HOUR);
  });

  it('is `defaultTtlMs` for fields without an expiry, from every write on', async () => {
    const key = newKey();
    await store.patch(key, change({ set: new Map([['open', ':1']]), defaultTtlMs: HOUR }), call());
    expect(await lifeOf(key)).toBe(HOUR);
    await store.patch(
      key,
      change({ set: new Map([['other', `${Date.now() + MINUTE}:1`]]), defaultTtlMs: 3 * HOUR }),
      call(),
    );
    expect(await lifeOf(key)).toBe(3 * HOUR);
    await store.patch(key, change({ unset: ['open'], defaultTtlMs: 3 * HOUR }), call());
    expect(await lifeOf(key)).toBe(MINUTE);
  });

  it('has no end without either, and gets one when a writer brings it', async () => {
    const key = newKey();
    const { defaultTtlMs: _, ...forEver } = change({ set: new Map([['open', ':1']]) });
    await store.patch(key, forEver, call());
    expect(await inspector.pttl(key)).toBe(-1);
    await store.patch(key, change({ set: new Map([['open', ':2']]), defaultTtlMs: HOUR }), call());
    expect(await lifeOf(key)).toBe(HOUR);
    await store.patch(key, forEver, call());
    expect(await inspector.pttl(key)).toBe(-1);
  });

  it('is what idling leaves, and a reader extends it no further than the expiry', async () => {
    const key = newKey();
    const set: Fields = new Map([['open', ':1']]);
    await store.patch(key, change({ set, defaultTtlMs: 2 * HOUR, idleMs: HOUR / 2 }), call());
    expect(await lifeOf(key)).toBe(HOUR / 2);
    await store.read(key, call());
    expect(await lifeOf(key)).toBe(HOUR / 2);
    await store.read(key, { ...call(), extendIdleMs: HOUR });
    expect(await lifeOf(key)).toBe(HOUR);
    await store.read(key, { ...call(), extendIdleMs: 5 * HOUR });
    expect(await lifeOf(key)).toBe(2 * HOUR);
  });

  it('is a tombstone’s own after the record is destroyed', async () => {
    const key = newKey();
    await store.patch(key, change({ set: day }), call());
    await store.destroy(key, MINUTE, call());
    expect(await lifeOf(key)).toBe(MINUTE);
    expect(await inspector.hlen(key)).toBe(1);
  });
});

it('a session of 5 MB, and one of 5,000 fields, come back byte for byte', async () => {
  const large: Fields = new Map([['large', `:"${'🧥é'.repeat(900_000)}"`]]);
  const many: Fields = new Map(Array.from({ length: 5000 }, (_, index) => [`field ${index}`, `:${index}`]));
  for (const set of [large, many]) {
    const key = newKey();
    await store.patch(key, change({ set, expect: new Map([...set.keys()].map((name) => [name, null])) }), call());
    expect(await store.read(key, call())).toEqual(set);
    expect(await store.patch(key, change({ unset: [...set.keys()], expect: set }), call())).toBe('applied');
    expect(await store.read(key, call())).toEqual(new Map());
  }
});

describe('keys that hold something else', () => {
  const others: [string, (key: string) => Promise<unknown>][] = [
    ['text', (key) => inspector.set(key, 'precious')],
    ['a hash that is no session', (key) => inspector.hset(key, 'precious', '1')],
  ];
  for (const [what, put] of others) {
    it(`${what} is removed by a sign-out, because the key can only be a session's`, async () => {
      const key = newKey();
      await put(key);
      expect(await store.destroy(key, 60_000, call())).toBeNull();
      expect(await store.read(key, call())).toBeNull();
      expect(await store.patch(key, change({ set: new Map([['a', ':1']]) }), call())).toBe('destroyed');
      expect(await inspector.hkeys(key)).toEqual(['']);
    });

    it(`${what} is neither read nor changed, and the error says what to do`, async () => {
      const key = newKey();
      await put(key);
      const before = await inspector.dumpBuffer(key);
      const operations = [
        () => store.read(key, call()),
        () => store.read(key, { ...call(), extendIdleMs: 1000 }),
        () => store.patch(key, change({ set: new Map([['a', ':1']]) }), call()),
      ];
      for (const operation of operations) {
        await expect(operation()).rejects.toMatchObject({
          code: 'refused',
          message:
            '[session-redis] The key of a session holds other data (WRONGTYPE), which was not changed. Remove the key, or give this site its own `prefix`.',
        });
      }
      expect(await inspector.dumpBuffer(key)).toEqual(before);
    });
  }

  it('a record of another version is neither read nor changed, and can be removed', async () => {
    const key = newKey();
    await inspector.hset(key, '', '9:whatever', 'a', ':1');
    for (const operation of [
      () => store.read(key, call()),
      () => store.read(key, { ...call(), extendIdleMs: 1000 }),
      () => store.patch(key, change({ set: new Map([['a', ':2']]) }), call()),
    ]) {
      await expect(operation()).rejects.toMatchObject({
        code: 'refused',
        message: expect.stringMatching(/newer version/),
      });
    }
    expect(await inspector.hgetall(key)).toEqual({ '': '9:whatever', a: ':1' });
    expect(await store.destroy(key, 1000, call())).toBeNull();
    expect(await store.read(key, call())).toBeNull();
  });

  it('a field corrupt by hand does not keep the others from being changed', async () => {
    const key = newKey();
    await store.patch(key, change({ set: new Map([['a', ':1']]) }), call());
    await inspector.hset(key, 'b', 'no field of ours');
    expect(await store.patch(key, change({ set: new Map([['a', ':2']]), unset: ['c'] }), call())).toBe('applied');
    expect((await store.read(key, call()))?.get('a')).toBe(':2');
    expect(await store.patch(key, change({ unset: ['b'] }), call())).toBe('applied');
    expect(await store.read(key, call())).toEqual(new Map([['a', ':2']]));
  });
});

describe('a Redis without memory', () => {
  it('refuses a change as a whole, and takes one that only removes', async () => {
    const key = newKey();
    const set: Fields = new Map([
      ['a', ':1'],
      ['b', ':1'],
    ]);
    await store.patch(key, change({ set }), call());
    await inspector.config('SET', 'maxmemory', '1');
    try {
      const patch = store.patch(key, change({ set: new Map([['a', ':2']]), unset: ['b'] }), call());
      await expect(patch).rejects.toMatchObject({ code: 'refused', message: expect.stringMatching(/no memory left/) });
      expect(await store.read(key, call())).toEqual(set);
      expect(await store.patch(key, change({ unset: ['b'] }), call())).toBe('applied');
      expect(await store.destroy(key, 1000, call())).toEqual(new Map([['a', ':1']]));
    } finally {
      await inspector.config('SET', 'maxmemory', '0');
    }
  });
});

describe('an ACL user', () => {
  it('may be confined to what the README says', async () => {
    const [, , user, ...rules] = README_ACL.split(' ') as [string, string, string, ...string[]];
    await inspector.acl('SETUSER', user, ...rules);
    const confined = openStore({ url: redis.url, username: user, password: 'a-long-password' });
    const key = `session:${newKey()}`;
    const set: Fields = new Map([['a', ':1']]);
    expect(await confined.patch(key, change({ set, idleMs: HOUR }), call())).toBe('applied');
    expect(await confined.read(key, { ...call(), extendIdleMs: HOUR })).toEqual(set);
    expect(await confined.patch(key, change({ unset: ['a'] }), call())).toBe('applied');
    const { defaultTtlMs: _, ...forEver } = change({ set });
    expect(await confined.patch(key, forEver, call())).toBe('applied');
    expect(await confined.destroy(key, 1000, call())).toEqual(set);
    const elsewhere = confined.read(newKey(), call());
    await expect(elsewhere).rejects.toMatchObject({
      code: 'configuration',
      message: expect.stringMatching(/lacks permissions/),
    });
    await confined.close?.();
  });
});

it('errors hold no key, no field and no value, and nor do traces', async () => {
  const traced: unknown[] = [];
  const listener = { start: (context: unknown) => void traced.push(context) };
  const channel = tracingChannel('ioredis:command') as { subscribe(to: object): void; unsubscribe(from: object): void };
  const [broken, good] = [`${newKey()}:precious-key`, `${newKey()}:precious-key`];
  await inspector.set(broken, 'precious-old');
  channel.subscribe(listener);
  await inspector.ping();
  const set: Fields = new Map([['precious-name', ':"precious-value"']]);
  await store.patch(good, change({ set }), call());
  const error: unknown = await store.patch(broken, change({ set }), call()).catch((reason: unknown) => reason);
  channel.unsubscribe(listener);
  expect(error).toBeInstanceOf(Error);
  // The listener does hear what is traced.
  expect(traced).toHaveLength(1);
  expect(inspect([error, traced], { depth: 20, showHidden: true })).not.toContain('precious');
});
