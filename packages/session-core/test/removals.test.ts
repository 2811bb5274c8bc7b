import { defineDriver } from '@coatcheck/session-core/driver';
import { stringify } from 'devalue';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { openMemoryStore } from '../../session-memory/src/store.ts';
import { liveBytes } from '@coatcheck/test-support/garbage';
import { newRequest } from './support/astro-site.ts';

const SESSIONS = 2000;
const LENGTH = 20_000;

afterEach(() => void vi.useRealTimers());

/** Signs out many users, each in its own request. Resolves to the growth of the heap in bytes. */
async function growthAfterSignOuts(identified: boolean, then: () => void = () => undefined): Promise<number> {
  const driver = defineDriver({
    name: `removals-${crypto.randomUUID()}`,
    options: {},
    open: () => openMemoryStore({}),
  })();
  const signOut = async (number: number): Promise<void> => {
    const id = crypto.randomUUID();
    const request = newRequest({ identified });
    await request.run(async () => {
      await driver.setItem(id, stringify(new Map([['notes', { data: `${number}`.padEnd(LENGTH, 'x') }]])));
      await driver.removeItem(id);
    });
    request.answer();
  };
  await signOut(0);
  // One session stays, because the cache of the memory driver frees all of its tables whenever it becomes empty.
  await driver.setItem(crypto.randomUUID(), stringify(new Map([['user', { data: 'ada' }]])));
  const before = await liveBytes();
  for (let number = 0; number < SESSIONS; number++) await signOut(number);
  then();
  const growth = (await liveBytes()) - before;
  // Use the driver after the measurement, so that it is not garbage-collected before.
  await driver.removeItem(crypto.randomUUID());
  return growth;
}

describe('of removed sessions', () => {
  it('nothing stays in memory when requests have an identity', async () => {
    expect(await growthAfterSignOuts(true)).toBeLessThan((SESSIONS * LENGTH) / 4);
  });

  it('a bounded amount stays in memory when requests have no identity', async () => {
    expect(await growthAfterSignOuts(false)).toBeLessThan((SESSIONS * LENGTH) / 3);
  });

  it('nothing stays in memory after the tombstones have ended, even without another removal', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date', 'performance'] });
    const growth = await growthAfterSignOuts(false, () => void vi.advanceTimersByTime(60_000));
    expect(growth).toBeLessThan((SESSIONS * LENGTH) / 16);
  });
});
