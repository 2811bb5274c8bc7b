import { defineDriver } from '@coatcheck/session-core/driver';
import { stringify } from 'devalue';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { openMemoryStore } from '../../session-memory/src/store.ts';
import { liveBytes } from '../../../test/support/garbage.ts';
import { newRequest } from './support/astro-site.ts';

const SESSIONS = 2000;
const LENGTH = 20_000;

afterEach(() => void vi.useRealTimers());

/** Signs out many users, each in a request of their own, and resolves to the bytes that are held more than before. */
async function heldAfterSignOuts(identified: boolean, then: () => void = () => undefined): Promise<number> {
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
  // Somebody stays: the memory driver's cache clears all of its tables whenever it becomes empty.
  await driver.setItem(crypto.randomUUID(), stringify(new Map([['user', { data: 'ada' }]])));
  const before = await liveBytes();
  for (let number = 0; number < SESSIONS; number++) await signOut(number);
  then();
  const held = (await liveBytes()) - before;
  // The driver lives as long as the measurement.
  await driver.removeItem(crypto.randomUUID());
  return held;
}

describe('of the sessions that were removed', () => {
  it('nothing is kept where the server tells requests apart', async () => {
    expect(await heldAfterSignOuts(true)).toBeLessThan((SESSIONS * LENGTH) / 4);
  });

  it('a bounded number of bytes is kept where nobody does', async () => {
    expect(await heldAfterSignOuts(false)).toBeLessThan((SESSIONS * LENGTH) / 3);
  });

  it('nothing is kept when the time of the tombstones is over, without another removal', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date', 'performance'] });
    const held = await heldAfterSignOuts(false, () => void vi.advanceTimersByTime(60_000));
    expect(held).toBeLessThan((SESSIONS * LENGTH) / 16);
  });
});
