// Measures what is lost when two processes write one session concurrently over unstorage:
//   node packages/session-unstorage/test/races.ts
// It uses a real Redis and unstorage's own driver. Each instance of the driver stands for a process.
import { createSessions } from '@coatcheck/session-core';
import { fromUnstorage } from '@coatcheck/session-unstorage';
import redis from 'unstorage/drivers/redis';
import { startRedis } from '@coatcheck/test-support/redis-server';

await using server = await startRedis();
const ROUNDS = 50;

const instances = () => {
  const drivers = [redis({ url: server.url }), redis({ url: server.url })];
  return { drivers, sites: drivers.map((driver) => createSessions({ driver: fromUnstorage(driver) })) };
};
const { drivers, sites } = instances();
const [one, other] = sites as [(typeof sites)[0], (typeof sites)[0]];

const visit = async (site: typeof one, cookie: string, key: string): Promise<string> => {
  const session = site.open(cookie);
  session.set(key, 1);
  return (await session.commit())?.split(';')[0] ?? cookie;
};

/** How many of 64 keys are lost if each is set by its own request, spread over these sites. */
async function countLost(over: (typeof one)[]): Promise<number> {
  let lost = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const cookie = await visit(one, '', 'user');
    await Promise.all(
      Array.from({ length: 64 }, (_, index) => visit(over[index % over.length]!, cookie, `key${index}`)),
    );
    lost += 65 - (await one.open(cookie).keys()).length;
  }
  return lost;
}

/** How many sessions are restored after a sign-out on one site while the other one writes. */
async function countRevived(): Promise<number> {
  let revived = 0;
  for (let round = 0; round < ROUNDS * 4; round++) {
    const cookie = await visit(one, '', 'user');
    const session = one.open(cookie);
    session.destroy();
    await Promise.all([
      ...Array.from({ length: 8 }, (_, index) => visit(other, cookie, `late${index}`)),
      session.commit(),
    ]);
    const seen = await Promise.all(sites.map((site) => site.open(cookie).keys()));
    revived += Number(seen.some((keys) => keys.length > 0));
  }
  return revived;
}

const total = ROUNDS * 64;
const percent = (count: number, of: number) => `${count} of ${of} (${((100 * count) / of).toFixed(1)} %)`;
console.log(`updates lost, one process:   ${percent(await countLost([one]), total)}`);
console.log(`updates lost, two processes: ${percent(await countLost([one, other]), total)}`);
console.log(`sessions revived:            ${percent(await countRevived(), ROUNDS * 4)}`);
for (const driver of drivers) await driver.dispose?.();
