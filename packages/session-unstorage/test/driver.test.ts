import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { createSessions, sweep } from '@coatcheck/session-core';
import { recordKey, sha256Of, type SessionDriver } from '@coatcheck/session-core/driver';
import { fromUnstorage } from '@coatcheck/session-unstorage';
import { Redis } from 'ioredis';
import type { Driver } from 'unstorage';
import fsLite from 'unstorage/drivers/fs-lite';
import memory from 'unstorage/drivers/memory';
import redis from 'unstorage/drivers/redis';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { moveClock } from '@coatcheck/test-support/clock';
import { startProxy } from '@coatcheck/test-support/fault-proxy';
import { newFolder } from '@coatcheck/test-support/folder';
import { collectGarbage } from '@coatcheck/test-support/garbage';
import { redisUrl, startRedis } from '@coatcheck/test-support/redis-server';

/** A deadline beyond the time limit of a test: a test that waits for it fails. */
const NEVER_MS = 600_000;

/** A visit that stores values. Resolves to the cookie. */
async function visit(driver: SessionDriver, values: Record<string, unknown>, ttl?: number): Promise<string> {
  const session = createSessions({ driver }).open('');
  for (const [key, value] of Object.entries(values)) session.set(key, value, ttl === undefined ? {} : { ttl });
  return (await session.commit())!.split(';')[0]!;
}

const idIn = (cookie: string): string => cookie.split('=')[1]!;

const read = (driver: SessionDriver, cookie: string) => createSessions({ driver }).open(cookie).get('user');

describe('the argument of fromUnstorage()', () => {
  it.each([
    ['nothing', undefined],
    ['a factory that was not called', memory],
    ['a read-only driver', { ...memory(), setItem: undefined }],
  ])('%s is refused at once', (_name, driver) => {
    expect(() => fromUnstorage(driver as unknown as Driver)).toThrow(
      /^\[session-unstorage\] fromUnstorage\(\) needs an unstorage driver.* has no .*setItem/,
    );
  });

  it('`idleTtl` is refused, because a read cannot write safely', async () => {
    // @ts-expect-error it is also a compile error
    const driver = fromUnstorage(memory(), { idleTtl: 60 });
    await expect(driver.getItem(crypto.randomUUID())).rejects.toMatchObject({
      code: 'configuration',
      message: expect.stringContaining('`idleTtl`'),
    });
  });

  it('is garbage collected when it is unused, even if each request creates a driver', async () => {
    const storages: WeakRef<Driver>[] = [];
    for (let request = 0; request < 200; request++) {
      const storage = memory();
      storages.push(new WeakRef<Driver>(storage));
      await visit(fromUnstorage(storage), { user: 'ada' });
    }
    await collectGarbage();
    // The last few may still be referenced by the engine.
    expect(storages.filter((storage) => storage.deref()).length).toBeLessThan(20);
  });

  it('two unstorage drivers with the same options are separate; the same one used twice is shared', async () => {
    const [one, other] = [memory(), memory()];
    const cookie = await visit(fromUnstorage(one), { user: 'ada' });
    expect(await read(fromUnstorage(other), cookie)).toBeUndefined();
    const twice = [fromUnstorage(one), fromUnstorage(one)];
    await Promise.all(
      Array.from({ length: 64 }, async (_, index) => {
        const session = createSessions({ driver: twice[index % 2]! }).open(cookie);
        session.set(`key${index}`, index);
        await session.commit();
      }),
    );
    expect(await createSessions({ driver: twice[0]! }).open(cookie).keys()).toHaveLength(65);
  });
});

describe('stored values', () => {
  it('keys are hashed, and unstorage drivers receive the ttl of values', async () => {
    const client = new Redis(await redisUrl());
    onTestFinished(() => client.disconnect());
    const driver = fromUnstorage(redis({ url: await redisUrl(), base: 'ttl' }));
    const cookie = await visit(driver, { user: 'ada' }, 3600);
    const key = `ttl:${await recordKey(idIn(cookie))}`;
    expect(await client.keys('ttl:*')).toEqual([key]);
    expect(await client.ttl(key)).toBeGreaterThan(1800);
    expect(await client.ttl(key)).toBeLessThanOrEqual(3600);

    const session = createSessions({ driver }).open(cookie);
    session.destroy();
    await session.commit();
    expect(await client.keys('ttl:*')).toEqual([`${key}.retired`]);
    expect(await client.ttl(`${key}.retired`)).toBeGreaterThan(1800);

    const forEver = fromUnstorage(redis({ url: await redisUrl(), base: 'forever' }), { ttl: false });
    await visit(forEver, { user: 'ada' });
    const [kept = ''] = await client.keys('forever:*');
    expect(await client.ttl(kept)).toBe(-1);
  });

  it('expired values are not returned, even if the unstorage driver cannot expire them', async () => {
    const driver = fromUnstorage(memory());
    const cookie = await visit(driver, { user: 'ada' }, 60);
    moveClock(61_000);
    expect(await read(driver, cookie)).toBeUndefined();
  });

  it('`sweep` removes values that expired more than a minute ago, and does not read other keys', async () => {
    const storage = memory();
    const asked: string[] = [];
    const watched: Driver = {
      ...storage,
      getItem: (key, options) => {
        asked.push(key);
        return storage.getItem(key, options);
      },
    };
    storage.setItem!('posts:1', `coatcheck 1 ${await sha256Of('x')} x`, {});
    const driver = fromUnstorage(watched);
    const kept = await visit(driver, { user: 'ada' });
    for (let index = 0; index < 5; index++) await visit(driver, { user: index }, 60);
    moveClock(100_000);
    expect(await sweep(driver)).toBe(0);
    moveClock(30_000);
    expect(await sweep(driver, 2)).toBe(2);
    expect(await sweep(driver)).toBe(3);
    expect(await storage.getKeys('', {})).toEqual(['posts:1', await recordKey(idIn(kept))]);
    expect(asked).not.toContain('posts:1');
    expect(await read(driver, kept)).toBe('ada');
  });
});

describe('a failing storage', () => {
  it('an error that is returned as a value is an error, not a missing session', async () => {
    const base = newFolder();
    const driver = fromUnstorage(fsLite({ base }));
    // There is a file where the driver expects a folder. It returns an error as the value.
    writeFileSync(join(base, 'session'), '');
    await expect(driver.getItem(crypto.randomUUID())).rejects.toMatchObject({
      driver: 'session-unstorage',
      operation: 'read',
      code: 'refused',
      cause: { code: 'ENOTDIR' },
    });
  });

  it('a value that is cut off, mixed, or from another program is an error, not a missing session', async () => {
    const base = newFolder();
    const driver = fromUnstorage(fsLite({ base }));
    const cookie = await visit(driver, { user: 'ada' });
    const [name = ''] = readdirSync(join(base, 'session'));
    const file = join(base, 'session', name);
    const whole = readFileSync(file, 'utf8');
    const session = createSessions({ driver }).open(cookie);
    session.set('user', 'bob');
    await session.commit();
    const mixed = whole.slice(0, whole.indexOf('ada')) + readFileSync(file, 'utf8').slice(whole.indexOf('ada'));
    expect(mixed).toHaveLength(whole.length);
    for (const text of ['', whole.slice(0, 10), whole.slice(0, -1), mixed, '{"user":"bob"}']) {
      writeFileSync(file, text);
      await expect(read(driver, cookie)).rejects.toMatchObject({
        code: 'refused',
        message: expect.stringContaining('did not return the value that was stored'),
      });
    }
    writeFileSync(file, whole);
    expect(await read(driver, cookie)).toBe('ada');
  });

  it('a user can sign out if the value is unreadable, and it is removed', async () => {
    const storage = memory();
    const driver = fromUnstorage(storage);
    const cookie = await visit(driver, { user: 'ada' });
    await storage.setItem!(await recordKey(idIn(cookie)), 'half a val', {});
    const session = createSessions({ driver }).open(cookie);
    await expect(session.get('user')).rejects.toMatchObject({ code: 'refused' });
    session.destroy();
    expect(await session.commit()).toContain('Max-Age=0');
    expect(await storage.getItem(await recordKey(idIn(cookie)), {})).toBeNull();
    expect(await read(driver, cookie)).toBeUndefined();
  });

  it('a value that is not a string is an error at once', async () => {
    const driver = fromUnstorage({ ...memory(), getItem: () => ({ user: 'bob' }) });
    await expect(driver.getItem(crypto.randomUUID())).rejects.toMatchObject({ code: 'refused' });
  });

  it('an incomplete value is read again for as long as it changes', async () => {
    const storage = memory();
    const cookie = await visit(fromUnstorage(storage), { user: 'ada', notes: 'x'.repeat(80) });
    vi.useFakeTimers({ toFake: ['Date', 'performance'], now: Date.now() });
    onTestFinished(() => void vi.useRealTimers());
    let length = 0;
    const slow = fromUnstorage(
      {
        ...storage,
        getItem: async (key, options) => {
          // A value that does not change would be read twice.
          vi.advanceTimersByTime(500);
          return ((await storage.getItem(key, options)) as string | null)?.slice(0, length++) ?? null;
        },
      },
      { timeout: NEVER_MS },
    );
    expect(await read(slow, cookie)).toBe('ada');
    expect(length).toBeGreaterThan(80);
  });

  it('concurrent readers never see a partial or mixed session, although fs-lite writes in place', async () => {
    const base = newFolder();
    // Two instances, as in two processes: no queue orders what they do.
    const [writer, reader] = [fromUnstorage(fsLite({ base })), fromUnstorage(fsLite({ base }))];
    const cookie = await visit(writer, { user: 'ada', notes: '' });
    let running = true;
    const writing = (async () => {
      for (let round = 0; round < 60; round++) {
        const session = createSessions({ driver: writer }).open(cookie);
        session.set('notes', ['', 'a'.repeat(500_000), 'b'.repeat(500_000)][round % 3]);
        await session.commit();
      }
    })().finally(() => (running = false));
    const reading = Array.from({ length: 4 }, async () => {
      while (running) {
        const session = createSessions({ driver: reader }).open(cookie);
        expect(await session.get('user')).toBe('ada');
        expect(await session.get('notes')).toMatch(/^(a*|b*)$/);
      }
    });
    await Promise.all([writing, ...reading]);
  });

  it.each([
    ['silent', (proxy: Proxy) => proxy.silence()],
    ['unreachable', (proxy: Proxy) => proxy.refuse()],
    ['closing connections during replies', (proxy: Proxy) => proxy.cut(3)],
    ['slow', (proxy: Proxy) => proxy.delay(2000)],
  ])('if Redis is %s, operations fail by the deadline, and work again after the outage', async (_name, break_) => {
    await using server = await startRedis();
    await using proxy = await startProxy({ target: server.port });
    const client = redis({ url: `redis://127.0.0.1:${proxy.port}`, retryStrategy: () => 50 });
    onTestFinished(() => client.dispose?.());
    // ioredis emits connection errors as events, which throw without a listener.
    (client.getInstance!() as Redis).on('error', () => undefined);
    const driver = fromUnstorage(client, { timeout: 500 });
    const cookie = await visit(fromUnstorage(client, { timeout: NEVER_MS }), { user: 'ada' });

    await break_(proxy);
    for (const operation of [() => read(driver, cookie), () => visit(driver, { user: 'bob' })]) {
      // It must also reject if there is never a reply.
      await expect(operation()).rejects.toMatchObject({
        driver: 'session-unstorage',
        code: expect.stringMatching(/^(timeout|unavailable|refused)$/),
      });
    }

    await proxy.pass();
    await expect.poll(() => read(driver, cookie).catch(() => 'not yet')).toBe('ada');
  });
});

it('a wrong password is an error at once, and the error does not quote it', async () => {
  await using server = await startRedis({ args: ['--requirepass', 'right'] });
  const client = redis({ url: `redis://:wr0ng@127.0.0.1:${server.port}` });
  onTestFinished(() => client.dispose?.());
  (client.getInstance!() as Redis).on('error', () => undefined);
  const driver = fromUnstorage(client, { timeout: NEVER_MS });
  for (const operation of [() => driver.getItem(crypto.randomUUID()), () => visit(driver, { user: 'ada' })]) {
    const error: unknown = await operation().catch((reason: unknown) => reason);
    expect(error).toMatchObject({
      code: 'refused',
      message: expect.stringContaining('See the cause for the reason'),
      cause: { message: expect.stringMatching(/NOAUTH|WRONGPASS/) },
    });
    expect(inspect(error, { depth: 9, showHidden: true })).not.toContain('wr0ng');
  }
});

it('a session that is destroyed in one process while another writes to it stays destroyed', async () => {
  const url = await redisUrl();
  const clients = [redis({ url, base: 'races' }), redis({ url, base: 'races' })] as const;
  onTestFinished(() => void clients.map((client) => client.dispose?.()));
  const [one, other] = [fromUnstorage(clients[0]), fromUnstorage(clients[1])];
  for (let round = 0; round < 20; round++) {
    const cookie = await visit(one, { user: 'ada' });
    const session = createSessions({ driver: one }).open(cookie);
    session.destroy();
    const writing = Array.from({ length: 16 }, (_, index) => {
      const late = createSessions({ driver: other }).open(cookie);
      late.set(`late${index}`, index);
      return late.commit();
    });
    await Promise.all([...writing, session.commit()]);
    for (const driver of [one, other]) expect(await createSessions({ driver }).open(cookie).keys()).toEqual([]);
  }
});

type Proxy = Awaited<ReturnType<typeof startProxy>>;
