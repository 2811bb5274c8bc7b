// `pnpm faults:load`: the shop under load while Redis and the way to it fail in all ways, again and again. Afterwards everything that an
// answer promised is there. `--seconds 60 --connections 200 --seed 1` say how much of it; the seed only decides what is tried when.
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { recordKey } from '@coatcheck/session-core/driver';
import { Redis } from 'ioredis';
import { startProxy, type FaultProxy } from '../support/fault-proxy.ts';
import { startRedis, type RedisServer } from '../support/redis-server.ts';
import type { Site } from '../support/site.ts';
import { createCustomer, createNotes, type Customer, type Notes } from './customer.ts';
import { buildShop, measure, startShop, type Measures } from './shop.ts';

export interface LoadOptions {
  connections: number;
  seconds: number;
  /** Default: 1000. */
  timeoutMs?: number;
  /** How much later than the deadlines of its operations a request may be answered. Default: 500. */
  slackMs?: number;
  /** How long a customer thinks between two requests, on average. Default: 1000. */
  thinkMs?: number;
  seed: number;
}

export interface LoadReport extends Notes {
  /** How often each fault came. */
  faults: Map<string, number>;
  /** Sessions that live on although their end was acknowledged, because Astro only logs that a removal failed. */
  unremoved: Unremoved;
  before: Vitals;
  after: Vitals;
}

interface Unremoved {
  bySignOut: number;
  /** The session before a sign-in, under its old id. */
  bySignIn: number;
}

/** What must be as before when everything is over. */
interface Vitals extends Measures {
  /** Connections to Redis, as Redis counts them. */
  clients: number;
}

/** What may be more in memory after everything than before. */
const GROWTH = 16 * 2 ** 20;

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
  const notes = createNotes();
  const customers = Array.from({ length: connections }, (_, index) =>
    createCustomer({ url: shop.url, name: `Ada${index}`, timeoutMs, slackMs, random, notes }),
  );

  await warmUp(customers, notes, shop);
  const before = await vitals(shop, redis);

  let open = true;
  const shopping = customers.map(async (customer) => {
    while (open) {
      await pause(random() * 2 * thinkMs);
      await customer.act();
    }
  });
  const faults = await comeAndGo({ proxy, redis, random, timeoutMs }, Date.now() + seconds * 1000);
  open = false;
  await Promise.all(shopping);

  await lookAgain(customers, notes);
  const unremoved = await checkThoseWhoLeft(customers, redis, shop, notes);
  const after = await vitals(shop, redis, before);
  if (after.clients > before.clients) notes.violations.push(`${after.clients} connections to Redis stay open`);
  if (after.sockets > before.sockets) notes.violations.push(`${after.sockets} connections to the shop stay open`);
  if (after.heapUsed > before.heapUsed + GROWTH) notes.violations.push('memory did not come back');
  return { ...notes, faults, unremoved, before, after };
}

/** Until nothing fails: a server that has just started may need longer than the deadline. */
async function warmUp(customers: Customer[], notes: Notes, shop: Site): Promise<void> {
  const deadline = Date.now() + 10_000;
  for (;;) {
    const { failed } = notes;
    await Promise.all(customers.map((customer) => customer.act()));
    if (notes.failed === failed) return;
    if (Date.now() > deadline) throw new Error(`The shop does not work before anything is broken:\n${shop.logs()}`);
  }
}

interface Way {
  proxy: FaultProxy;
  redis: RedisServer;
  random: () => number;
  timeoutMs: number;
}

/** Until the time is over; then everything is well. Each lasts for up to one and a half deadlines. Returns how often each came. */
async function comeAndGo({ proxy, redis, random, timeoutMs }: Way, endsAt: number): Promise<Map<string, number>> {
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

async function lookAgain(customers: Customer[], notes: Notes): Promise<void> {
  for (const customer of customers) {
    const deadline = Date.now() + 5000;
    while (!(await customer.lookAgain())) {
      if (Date.now() > deadline) {
        notes.violations.push('the shop is not well again');
        return;
      }
      await pause(20);
    }
  }
}

/** Asks Redis itself. */
async function checkThoseWhoLeft(
  customers: Customer[],
  redis: RedisServer,
  shop: Site,
  notes: Notes,
): Promise<Unremoved> {
  const inspector = new Redis(redis.url);
  const unremoved = { bySignOut: 0, bySignIn: 0 };
  for (const id of customers.flatMap(({ left }) => [...left])) {
    const header = await inspector.hget(await recordKey(id), '');
    if (header === null || header === '1:retired') continue;
    if (shop.logs().includes(`Failed to remove session ${id}`)) unremoved.bySignOut += 1;
    else if (shop.logs().includes(`Failed to remove old session ${id}`)) unremoved.bySignIn += 1;
    else notes.violations.push('a session that was left lives');
  }
  inspector.disconnect();
  return unremoved;
}

/** Where `wanted` is given: as soon as they are no more than that, or after ten seconds, in which idle connections end. */
async function vitals(shop: Site, redis: RedisServer, wanted?: Vitals): Promise<Vitals> {
  const inspector = new Redis(redis.url);
  const deadline = Date.now() + 10_000;
  for (;;) {
    const measured = await measure(shop);
    const clients = Number(/connected_clients:(\d+)/.exec(await inspector.info('clients'))![1]) - 1;
    const isOver = !wanted || (clients <= wanted.clients && measured.sockets <= wanted.sockets);
    if (isOver || Date.now() > deadline) {
      inspector.disconnect();
      return { ...measured, clients };
    }
    await pause(250);
  }
}

function shuffled<Item>(items: Item[], random: () => number): Item[] {
  const weighed = items.map((item) => ({ item, weight: random() }));
  return weighed.sort((one, other) => one.weight - other.weight).map(({ item }) => item);
}

/** Mulberry32: the same numbers for the same seed. */
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
