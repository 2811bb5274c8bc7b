// `pnpm faults:load`: puts the shop under load while Redis and the network fail repeatedly, and then checks that everything is stored that
// a response acknowledged. Options: `--seconds 60 --connections 200 --timeout 1000 --seed 1`. The same seed gives the same random numbers,
// but not the same timing.
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { recordKey } from '@coatcheck/session-core/driver';
import { Redis } from 'ioredis';
import { startProxy, type FaultProxy } from '../support/fault-proxy.ts';
import { startRedis, type RedisServer } from '../support/redis-server.ts';
import type { Site } from '../support/site.ts';
import { createCustomer, createObservations, type Customer, type Observations } from './customer.ts';
import { buildShop, measure, startShop, type Measures } from './shop.ts';

/** The options of `runLoad`. */
export interface LoadOptions {
  /** The number of customers, who send requests concurrently. */
  connections: number;
  /** How long faults are injected, in seconds. */
  seconds: number;
  /**
   * The option `timeout` of the shop's driver, in milliseconds.
   *
   * @default 1000
   */
  timeoutMs?: number;
  /**
   * How much longer than the timeouts of its operations a request may take, in milliseconds.
   *
   * @default 500
   */
  slackMs?: number;
  /**
   * How long a customer waits between two requests, on average, in milliseconds.
   *
   * @default 1000
   */
  thinkMs?: number;
  /** The seed of the random numbers. */
  seed: number;
}

/** What `runLoad` has observed. */
export interface LoadReport extends Observations {
  /** How often each fault was injected. */
  faults: Map<string, number>;
  /** Sessions that still exist although a response said otherwise: if destroying a session fails, Astro only logs it. */
  unremoved: Unremoved;
  /** Before the first fault. */
  before: Vitals;
  /** After the last fault, and after the recovery. */
  after: Vitals;
}

interface Unremoved {
  /** The number of sessions that a sign-out did not destroy. */
  bySignOut: number;
  /** The number of old sessions that a sign-in did not destroy. */
  bySignIn: number;
}

/** Measurements that must return to their initial level. */
interface Vitals extends Measures {
  /** The number of connections to Redis, as counted by Redis. */
  clients: number;
}

/** How much the heap may grow, in bytes. */
const MAX_HEAP_GROWTH = 16 * 2 ** 20;

/** Runs the shop under load, injects faults, and checks the result. Resolves even if there are violations. */
export async function runLoad({
  connections,
  seconds,
  timeoutMs = 1000,
  slackMs = 500,
  thinkMs = 1000,
  seed,
}: LoadOptions): Promise<LoadReport> {
  const built = await buildShop();
  await using redis = await startRedis({ args: ['--appendfsync', 'always'] });
  await using proxy = await startProxy({ target: redis.port });
  await using shop = await startShop(built, proxy.port, timeoutMs);
  const random = randomFrom(seed);
  const observations = createObservations();
  const customers = Array.from({ length: connections }, (_, index) =>
    createCustomer({ url: shop.url, name: `Ada${index}`, timeoutMs, slackMs, random, observations }),
  );

  await warmUp(customers, observations, shop);
  const before = await measureVitals(shop, redis);

  let isOpen = true;
  const shopping = customers.map(async (customer) => {
    while (isOpen) {
      await pause(random() * 2 * thinkMs);
      await customer.act();
    }
  });
  const faults = await injectFaults({ proxy, redis, random, timeoutMs }, Date.now() + seconds * 1000);
  isOpen = false;
  await Promise.all(shopping);

  await verifyAll(customers, observations);
  const unremoved = await checkInvalidIds(customers, redis, shop, observations);
  const after = await measureVitals(shop, redis, before);
  if (after.clients > before.clients) observations.violations.push(`${after.clients} connections to Redis stay open`);
  if (after.sockets > before.sockets)
    observations.violations.push(`${after.sockets} connections to the shop stay open`);
  if (after.heapUsed > before.heapUsed + MAX_HEAP_GROWTH) observations.violations.push('memory did not come back');
  return { ...observations, faults, unremoved, before, after };
}

/** Sends requests until none fails: a server that has just started may need longer than the timeout. */
async function warmUp(customers: Customer[], observations: Observations, shop: Site): Promise<void> {
  const giveUpAt = Date.now() + 10_000;
  for (;;) {
    const { failed } = observations;
    await Promise.all(customers.map((customer) => customer.act()));
    if (observations.failed === failed) return;
    if (Date.now() > giveUpAt) throw new Error(`The shop does not work before anything is broken:\n${shop.logs()}`);
  }
}

interface FaultContext {
  proxy: FaultProxy;
  redis: RedisServer;
  random: () => number;
  timeoutMs: number;
}

/**
 * Injects faults in random order until `endsAt`, and then repairs everything. Each fault lasts for up to 1.6 times `timeoutMs`. Resolves to
 * how often each fault was injected.
 */
async function injectFaults(
  { proxy, redis, random, timeoutMs }: FaultContext,
  endsAt: number,
): Promise<Map<string, number>> {
  const faults: Record<string, () => Promise<void>> = {
    reset: () => proxy.reset(),
    blackhole: () => proxy.silence(),
    delay: () => proxy.delay(300),
    jitter: () => proxy.delay(() => random() * 500),
    'cut in an answer': () => proxy.cut(Math.floor(random() * 400)),
    'one byte at a time': () => proxy.trickle(),
    refused: () => proxy.refuse(),
    'kill -9': () => redis.kill(),
    SIGSTOP: async () => redis.freeze(),
  };
  const counts = new Map(Object.keys(faults).map((name) => [name, 0]));
  while (Date.now() < endsAt) {
    for (const name of shuffled(Object.keys(faults), random)) {
      if (Date.now() >= endsAt) break;
      await faults[name]!();
      await pause((0.1 + random() * 1.5) * timeoutMs);
      if (!redis.pid) await redis.restart();
      redis.thaw();
      await proxy.pass();
      counts.set(name, counts.get(name)! + 1);
      await pause(random() * 0.7 * timeoutMs);
    }
  }
  return counts;
}

/** Lets every customer check its session. Each gets five seconds, in which requests may fail. */
async function verifyAll(customers: Customer[], observations: Observations): Promise<void> {
  for (const customer of customers) {
    const giveUpAt = Date.now() + 5000;
    while (!(await customer.verify())) {
      if (Date.now() > giveUpAt) {
        observations.violations.push('the shop is not well again');
        return;
      }
      await pause(20);
    }
  }
}

/** Checks in Redis that all sessions are gone whose end a response acknowledged. Counts those for which Astro has logged a failure. */
async function checkInvalidIds(
  customers: Customer[],
  redis: RedisServer,
  shop: Site,
  observations: Observations,
): Promise<Unremoved> {
  const inspector = new Redis(redis.url);
  const unremoved = { bySignOut: 0, bySignIn: 0 };
  for (const id of customers.flatMap(({ invalidIds }) => [...invalidIds])) {
    // A record and a tombstone have their headers in the field with the empty name.
    const header = await inspector.hget(await recordKey(id), '');
    if (header === null || header === '1:retired') continue;
    if (shop.logs().includes(`Failed to remove session ${id}`)) unremoved.bySignOut += 1;
    else if (shop.logs().includes(`Failed to remove old session ${id}`)) unremoved.bySignIn += 1;
    else observations.violations.push('a session that was left lives');
  }
  inspector.disconnect();
  return unremoved;
}

/**
 * Measures the shop and Redis.
 *
 * @param initial if given, waits until there are no more connections than there were then, for at most ten seconds: idle connections end by
 *   themselves.
 */
async function measureVitals(shop: Site, redis: RedisServer, initial?: Vitals): Promise<Vitals> {
  const inspector = new Redis(redis.url);
  const giveUpAt = Date.now() + 10_000;
  for (;;) {
    const measured = await measure(shop);
    // Without the connection of the inspector itself.
    const clients = Number(/connected_clients:(\d+)/.exec(await inspector.info('clients'))![1]) - 1;
    const isBack = !initial || (clients <= initial.clients && measured.sockets <= initial.sockets);
    if (isBack || Date.now() > giveUpAt) {
      inspector.disconnect();
      return { ...measured, clients };
    }
    await pause(250);
  }
}

function shuffled<Item>(items: Item[], random: () => number): Item[] {
  const weighted = items.map((item) => ({ item, weight: random() }));
  return weighted.sort((one, other) => one.weight - other.weight).map(({ item }) => item);
}

/** Returns a generator of random numbers from 0 to 1. The same seed gives the same numbers. https://github.com/cprosche/mulberry32 */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

function print(options: LoadOptions, report: LoadReport): void {
  const total = (counts: Map<string, number>) => [...counts.values()].reduce((sum, count) => sum + count, 0);
  const megabytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MB`;
  const { before, after } = report;
  const lines = [
    `${options.connections} connections, ${options.seconds} s, a deadline of ${options.timeoutMs} ms, seed ${options.seed}`,
    `requests    ${report.answered + report.failed}: ${report.answered} answered, ${report.failed} failed, whose writes may or may not be there`,
    `promises    ${report.writes} changes of a cart, ${report.signIns} sign-ins, ${report.signOuts} sign-outs`,
    `faults      ${total(report.faults)}: ${[...report.faults].map(([name, count]) => `${name} ${count}`).join(', ')}`,
    `slowest     ${[...report.slowest].map(([what, { ms, limitMs }]) => `${what} ${Math.round(ms)} of ${limitMs} ms`).join(', ')}`,
    `memory      heap ${megabytes(before.heapUsed)} before, ${megabytes(after.heapUsed)} after; RSS ${megabytes(before.rss)}, ${megabytes(after.rss)}`,
    `connections to Redis ${before.clients} before, ${after.clients} after; to the shop ${before.sockets}, ${after.sockets}`,
    `apart       what Astro answers with success although it logs that a removal failed, and what it removes before it stores the new:`,
    `            ${report.unremoved.bySignOut} sessions live on after a sign-out, ${report.unremoved.bySignIn} old ones after a sign-in`,
    `            ${report.lostInFailedSignIns} carts were lost in a sign-in that failed`,
    `violations  ${report.violations.length}`,
    ...report.violations.slice(0, 30).map((text) => `            ${text}`),
  ];
  console.log(lines.join('\n'));
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '60' },
      connections: { type: 'string', default: '200' },
      timeout: { type: 'string', default: '1000' },
      seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
    },
  });
  const options = {
    seconds: Number(values.seconds),
    connections: Number(values.connections),
    timeoutMs: Number(values.timeout),
    seed: Number(values.seed),
  };
  const report = await runLoad(options);
  print(options, report);
  process.exit(report.violations.length > 0 ? 1 : 0);
}
