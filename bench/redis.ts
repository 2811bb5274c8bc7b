import type { SessionDriver } from '@coatcheck/session-core';
import redisRuntime from '@coatcheck/session-redis/runtime';
import { Redis } from 'ioredis';
import unstorageRedis from 'unstorage/drivers/redis';
import { startProxy, type FaultProxy } from '@coatcheck/test-support/fault-proxy';
import { startRedis, type RedisServer } from '@coatcheck/test-support/redis-server';
import { startLibrary, type LibraryName, type Turn } from './library.ts';
import { cpuOf, median, ratio, takeTurns, wallOf } from './measure.ts';
import { pages } from './pages.ts';
import { digits, percent, spread, type Group, type Result, type Row } from './report.ts';
import { astro, astroWithOurs, session, visitorOf, type Visit } from './subjects.ts';

/** The same sessions on one Redis, behind each library. Ends its connections when it is disposed of. */
function connect(url: string, timeout?: number) {
  const unstorage = unstorageRedis({ url });
  // Without a listener, ioredis prints what happens to it.
  (unstorage.getInstance!() as Redis).on('error', () => {});
  const driver: SessionDriver = redisRuntime({ url, timeout });
  return {
    visits: { astro: astro(unstorage), session: session(driver), face: astroWithOurs(driver) },
    [Symbol.dispose]: () => void unstorage.dispose!(),
  };
}

type Name = keyof ReturnType<typeof connect>['visits'];

const AT_ONCE = 128;
const busyNames = ['astro', 'raw', 'session', 'face'] as const satisfies LibraryName[];

/** 128 visitors, each of whom asks again when he has been answered. */
function busy(name: string, what: string, reach: number, page: Turn['page']): Row {
  return {
    name,
    what,
    reach: `at least ${reach}`,
    async run(quick) {
      await using redis = await startRedis({ args: ['--appendonly', 'no'] });
      using stack = new DisposableStack();
      const turn = (library: LibraryName) => {
        const started = stack.use(startLibrary(library, redis.url));
        return () => started.turn({ page, fill: 'login', visitors: AT_ONCE, ms: 50 });
      };
      const turns = { astro: turn('astro'), raw: turn('raw'), session: turn('session'), face: turn('face') };
      const took = await takeTurns(turns, quick ? 10 : 80);
      const factor = ratio(took.raw, took.session);
      return {
        cells: busyNames.map(
          (library) => `${digits(1e6 / median(wallOf(took[library])))}/s, ${spread(cpuOf(took[library]), 'µs')}`,
        ),
        ours: digits(factor),
        reached: factor >= reach,
      };
    },
  };
}

const far: Row = {
  name: 'far',
  what: 'Redis answers 100 ms later: set one key, read none',
  reach: 'one round trip: 105 ms',
  async run(quick) {
    await using redis = await startRedis();
    await using proxy = await startProxy({ target: redis.port });
    using libraries = connect(`redis://127.0.0.1:${proxy.port}`);
    const client = new Redis(proxy.port);
    await client.ping();
    const took: Record<string, number[]> = {};
    for (const [name, visit] of Object.entries(libraries.visits)) {
      await proxy.pass();
      const request = await visitorOf(visit, pages.login);
      await proxy.delay(100);
      took[name] = await timesOf(quick ? 3 : 10, () => visit(request, pages.write));
    }
    took['raw'] = await timesOf(3, () => client.hset('raw', 'flash', 'Saved.'));
    client.disconnect();
    const ms = median(took['session']!);
    return {
      cells: ['astro', 'raw', 'session', 'face'].map((name) => `${digits(median(took[name]!))} ms`),
      ours: `${digits(ms)} ms`,
      reached: ms < 105.5,
    };
  },
};

async function timesOf(count: number, work: () => Promise<unknown>): Promise<number[]> {
  const samples: number[] = [];
  for (let index = 0; index < count; index++) samples.push(await msOf(work()));
  return samples;
}

async function msOf(work: Promise<unknown>, defaultTtlMs = Infinity): Promise<number> {
  const startedAt = performance.now();
  const cap = Promise.withResolvers<void>();
  const timer = defaultTtlMs === Infinity ? undefined : setTimeout(() => cap.resolve(), defaultTtlMs);
  const settled = await Promise.race([
    work.then(
      () => true,
      () => true,
    ),
    cap.promise,
  ]);
  clearTimeout(timer);
  return settled ? performance.now() - startedAt : Infinity;
}

interface Site {
  redis: RedisServer;
  proxy: FaultProxy;
}

/** What visitors go through: the request that meets the outage, the next one, and how soon one succeeds afterwards. */
function outage(name: string, what: string, begin: (site: Site) => unknown, end: (site: Site) => unknown): Row {
  return {
    name,
    what,
    reach: 'the deadline, then 5 ms; back within 250 ms',
    async run(quick) {
      const deadlineMs = quick ? 1000 : 5000;
      const defaultTtlMs = 3 * deadlineMs;
      await using redis = await startRedis();
      await using proxy = await startProxy({ target: redis.port });
      using libraries = connect(`redis://127.0.0.1:${proxy.port}`, deadlineMs);
      const visits = Object.values(libraries.visits);
      const requests = await Promise.all(visits.map((visit) => visitorOf(visit, pages.login)));
      const all = (work: (ask: () => Promise<unknown>) => Promise<number>): Promise<number[]> =>
        Promise.all(visits.map((visit, index) => work(() => visit(requests[index]!, pages.read))));

      await begin({ redis, proxy });
      const first = await all((ask) => msOf(ask(), defaultTtlMs));
      const next = await all((ask) => msOf(ask(), defaultTtlMs));
      await end({ redis, proxy });
      const back = await all((ask) => msOf(untilItWorks(ask, defaultTtlMs), defaultTtlMs));

      const told = (index: number): string => {
        const [one, two, three] = [first, next, back].map((ms) => answeredAfter(ms[index]!, defaultTtlMs));
        return `${one}, then ${two}; back after ${three}`;
      };
      return {
        cells: [told(0), '', told(1), told(2)],
        reached: [1, 2].every((index) => first[index]! < deadlineMs + 250 && next[index]! < 5 && back[index]! < 250),
      };
    },
  };
}

const answeredAfter = (ms: number, defaultTtlMs: number): string => {
  if (ms === Infinity) return `not within ${digits(defaultTtlMs / 1000)} s`;
  return ms < 1000 ? `${digits(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
};

async function untilItWorks(visit: () => Promise<unknown>, defaultTtlMs: number): Promise<void> {
  const endsAt = performance.now() + defaultTtlMs;
  while (performance.now() < endsAt) {
    try {
      await visit();
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}

const WRITERS = 64;

const writers: Row = {
  name: 'writers',
  what: '64 requests at once, each sets another key of one session: lost',
  reach: percent(0),
  async run() {
    await using redis = await startRedis();
    using libraries = connect(redis.url);
    const lost = {} as Record<Name, number>;
    for (const [name, visit] of Object.entries(libraries.visits) as [Name, Visit][]) {
      const request = await visitorOf(visit, pages.login);
      const keys = Array.from({ length: WRITERS }, (_, index) => `key${index}`);
      await Promise.all(keys.map((key) => visit(request, (opened) => opened.set(key, key))));
      lost[name] = 0;
      await visit(request, async (opened) => {
        for (const key of keys) if ((await opened.get(key)) !== key) lost[name]++;
      });
    }
    return {
      cells: [percent(lost.astro / WRITERS), '', percent(lost.session / WRITERS), percent(lost.face / WRITERS)],
      ours: percent((lost.session + lost.face) / WRITERS),
      reached: lost.session + lost.face === 0,
    } satisfies Result;
  },
};

export const onRedis: Group = {
  title: 'On Redis',
  about:
    'Requests a second, with 128 at once in one process, and the CPU time that each takes of that process; the raw client (ioredis) is the ' +
    'limit: `HGET` for a read, a script of two commands for a write. `ours` is how many times as many `Session` serves as the raw ' +
    'client in the same round. Then what distance and outages do: how long the request waits that meets the outage, the next one, ' +
    'and how long after the end of it one succeeds. Our deadline is the default, 5 s (1 s with `--quick`); a wait is given up after three times as long.',
  columns: ['Astro, unstorage', 'raw client', '`Session`', 'Astro, Coatcheck'],
  rows: [
    busy('redis-read', 'read one key', 0.8, 'read'),
    busy('redis-set', 'set one key, read none', 0.8, 'write'),
    far,
    outage(
      'stopped',
      'Redis is stopped',
      ({ redis, proxy }) => Promise.all([redis.kill(), proxy.refuse()]).then(() => undefined),
      async ({ redis, proxy }) => {
        await redis.restart();
        await proxy.pass();
      },
    ),
    outage(
      'silent',
      'the network swallows everything',
      ({ proxy }) => proxy.silence(),
      ({ proxy }) => proxy.pass(),
    ),
    writers,
  ],
};
