import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { startRedis } from '@coatcheck/test-support/redis-server';
import { buildSite, startSite } from '@coatcheck/test-support/site';
import { load } from './load.ts';
import { cpuOf, median, quantile, ratio, takeTurns, wallOf, type Sample, type Samples } from './measure.ts';
import { digits, percent, type Group, type Row } from './report.ts';
import type { ServerName } from './servers.ts';

/** A server in a process of its own, with the pages of `pages.ts`, and `/cpu`, which tells what CPU time it took so far. */
export interface Server extends AsyncDisposable {
  address: string;
}

export async function startServer(name: ServerName, url?: string): Promise<Server> {
  const child = fork(new URL('servers.ts', import.meta.url), url ? [name, url] : [name], {
    env: process.env,
  });
  const [address] = (await once(child, 'message')) as [string];
  return {
    address,
    async [Symbol.asyncDispose]() {
      child.kill();
      await once(child, 'exit');
    },
  };
}

/** A built Astro 7 site. */
async function startAstro(driver: string, redisUrl: string): Promise<Server> {
  const files = {
    'src/middleware.ts': 'export const onRequest = (_: unknown, next: () => unknown) => next();\n',
    'src/bench-pages.ts': await readFile(new URL('pages.ts', import.meta.url), 'utf8'),
    'src/pages/[page].ts': `
      import { pageAt } from '../bench-pages.ts';
      export const GET = async (context) => {
        const { page } = context.params;
        if (page === 'none') return Response.json(null);
        if (page === 'cpu') return new Response(String(Object.values(process.cpuUsage()).reduce((a, b) => a + b)));
        return Response.json((await pageAt(page)(context.session)) ?? null);
      };`,
  };
  const site = await startSite(await buildSite({ astro: 7, driver, files }), {
    env: { REDIS_URL: redisUrl, NODE_ENV: 'production' },
  });
  return { address: site.url, [Symbol.asyncDispose]: () => site.kill() };
}

const CONNECTIONS = 32;

/** A page of a server, as visitors with a session ask for it. */
interface Load {
  server: Server;
  path: string;
  cookies: string[];
}

export async function cookiesOf({ address }: Server): Promise<string[]> {
  const login = async () => {
    const answer = await fetch(`${address}/login`);
    if (!answer.ok) throw new Error(`/login was answered with ${answer.status}: ${await answer.text()}`);
    return answer.headers.getSetCookie()[0]!.split(';')[0]!;
  };
  return Promise.all(Array.from({ length: CONNECTIONS }, login));
}

async function cpuTimeOf({ address }: Server): Promise<number> {
  return Number(await (await fetch(`${address}/cpu`)).text());
}

/** So many times the turns are repeated, until the quartiles of the ratios are close to their medians. */
const REPEATS = 4;

/**
 * Lets the loads take turns; the CPU time is the server's.
 *
 * @param pairs what the row compares. The turns are repeated until the quartiles of these ratios lie within 5 % of the median.
 */
export async function loadInTurns<Name extends string>(
  loads: Record<Name, Load>,
  quick: boolean,
  pairs: [Name, Name][] = [],
): Promise<Samples<Name>> {
  const ms = quick ? 100 : 500;
  // Under load it takes Node many seconds to compile a whole site for good.
  for (const { server, path, cookies } of quick ? [] : Object.values<Load>(loads)) {
    await load(server.address, path, cookies, 4000);
  }
  const turns = Object.entries<Load>(loads).map(([name, { server, path, cookies }]) => {
    const turn = async (): Promise<Sample> => {
      const cpuBefore = await cpuTimeOf(server);
      const us = await load(server.address, path, cookies, ms);
      return { us, cpuUs: ((await cpuTimeOf(server)) - cpuBefore) / ((ms * 1000) / us) };
    };
    return [name, turn];
  });
  const all = Object.fromEntries(turns) as Record<Name, () => Promise<Sample>>;
  const took = await takeTurns(all, quick ? 4 : 15);
  const isCertain = (): boolean => pairs.every(([one, other]) => isWithin(took[one], took[other]));
  for (let repeat = 1; repeat < REPEATS && !quick && !isCertain(); repeat++) {
    const more = await takeTurns(all, 15);
    for (const name of Object.keys(took) as Name[]) took[name].push(...more[name]);
  }
  return took;
}

function ratiosOf(one: Sample[], other: Sample[]): number[] {
  return one.map((sample, round) => sample.cpuUs / other[round]!.cpuUs);
}

/** Whether the quartiles of the ratios lie within 5 % of their median. */
function isWithin(one: Sample[], other: Sample[]): boolean {
  const ratios = ratiosOf(one, other);
  return [0.25, 0.75].every((part) => Math.abs(quantile(ratios, part) / median(ratios) - 1) <= 0.05);
}

/** How many times the CPU time of one the other takes, with the quartiles. Says so if these are not within 5 %. */
export function withQuartiles(one: Sample[], other: Sample[]): string {
  const ratios = ratiosOf(one, other);
  const [low, high] = [quantile(ratios, 0.25), quantile(ratios, 0.75)];
  const doubt = isWithin(one, other) ? '' : ', not within 5 %';
  return `${digits(median(ratios))} times (${low.toFixed(2)}–${high.toFixed(2)}${doubt})`;
}

export const rate = (samples: Sample[]): string =>
  `${digits(1e6 / median(wallOf(samples)))}/s, ${digits(median(cpuOf(samples)))} µs`;
const shareOf = (one: Sample[], none: Sample[]): number => ratio(none, one, 'cpuUs');
const withShare = (one: Sample[], none: Sample[]): string => `${rate(one)}: **${percent(shareOf(one, none))}**`;

function peer(name: ServerName, what: string): Row {
  return {
    name: `http-${name}`,
    what,
    reach: '',
    async run(quick) {
      await using redis = await startRedis({ args: ['--appendonly', 'no'] });
      await using without = await startServer(name);
      await using server = await startServer(name, redis.url);
      const cookies = await cookiesOf(server);
      const took = await loadInTurns(
        {
          none: { server: without, path: '/none', cookies },
          read: { server, path: '/read', cookies },
          write: { server, path: '/write', cookies },
        },
        quick,
        [
          ['none', 'read'],
          ['none', 'write'],
        ],
      );
      const [readShare, writeShare] = [shareOf(took.read, took.none), shareOf(took.write, took.none)];
      const isCertain = isWithin(took.none, took.read) && isWithin(took.none, took.write);
      return {
        cells: [rate(took.none), withShare(took.read, took.none), withShare(took.write, took.none)],
        ours: `${percent(readShare)} / ${percent(writeShare)}${isCertain ? '' : '; quartiles not within 5 %'}`,
      };
    },
  };
}

/** The part of the speed of code by hand that `Session` is to keep. */
const OF_BY_HAND = 0.85;

/** `Session` beside code by hand, in one run. */
const besideByHand: Row = {
  name: 'http-by-hand',
  what: '`Session` beside code by hand',
  reach: `at least ${OF_BY_HAND} / ${OF_BY_HAND}`,
  async run(quick) {
    await using redis = await startRedis({ args: ['--appendonly', 'no'] });
    await using server = await startServer('node', redis.url);
    await using byHand = await startServer('raw', redis.url);
    const [cookies, theirs] = [await cookiesOf(server), await cookiesOf(byHand)];
    const took = await loadInTurns(
      {
        read: { server, path: '/read', cookies },
        readByHand: { server: byHand, path: '/read', cookies: theirs },
        write: { server, path: '/write', cookies },
        writeByHand: { server: byHand, path: '/write', cookies: theirs },
      },
      quick,
      [
        ['readByHand', 'read'],
        ['writeByHand', 'write'],
      ],
    );
    return {
      cells: [
        '',
        `${rate(took.read)}; by hand ${rate(took.readByHand)}`,
        `${rate(took.write)}; by hand ${rate(took.writeByHand)}`,
      ],
      ours: `${withQuartiles(took.readByHand, took.read)} / ${withQuartiles(took.writeByHand, took.write)}`,
      reached: [ratio(took.readByHand, took.read, 'cpuUs'), ratio(took.writeByHand, took.write, 'cpuUs')].every(
        (factor) => factor >= OF_BY_HAND,
      ),
    };
  },
};

/** Two sites that differ in their driver only. */
const astroSites: Row = {
  name: 'http-astro',
  what: "Astro 7.3: unstorage's driver, then ours",
  reach: "above unstorage's",
  async run(quick) {
    await using redis = await startRedis({ args: ['--appendonly', 'no'] });
    await using theirs = await startAstro('wrappedUnstorageDriver()', redis.url);
    await using ours = await startAstro('redisDriver()', redis.url);
    const [theirCookies, ourCookies] = [await cookiesOf(theirs), await cookiesOf(ours)];
    const took = await loadInTurns(
      {
        none: { server: theirs, path: '/none', cookies: theirCookies },
        read: { server: theirs, path: '/read', cookies: theirCookies },
        ourRead: { server: ours, path: '/read', cookies: ourCookies },
        write: { server: theirs, path: '/write', cookies: theirCookies },
        ourWrite: { server: ours, path: '/write', cookies: ourCookies },
      },
      quick,
      [
        ['read', 'ourRead'],
        ['write', 'ourWrite'],
      ],
    );
    const [readGain, writeGain] = [shareOf(took.ourRead, took.read), shareOf(took.ourWrite, took.write)];
    return {
      cells: [
        rate(took.none),
        `${withShare(took.read, took.none)}<br>${withShare(took.ourRead, took.none)}`,
        `${withShare(took.write, took.none)}<br>${withShare(took.ourWrite, took.none)}`,
      ],
      ours: `${withQuartiles(took.read, took.ourRead)} / ${withQuartiles(took.write, took.ourWrite)}`,
      reached: readGain >= 1 && writeGain >= 1,
    };
  },
};

export const overHttp: Group = {
  title: 'Over HTTP, on Redis',
  about:
    `Answers a second over ${CONNECTIONS} connections, and the CPU time that each takes of the server's process. In bold: the part of that time ` +
    'which the same server takes without any session, which is the share of its answers that are left when it has nothing else to wait for. ' +
    'Every server runs in a process of its own; the load and Redis share the machine with it. The session is the typical one; a read reads ' +
    'one key, a write sets one. Each library is set up as its documentation says; `@hono/session` answers before a write is stored. By hand: ' +
    'ioredis and a cookie, and nothing else.',
  columns: ['without sessions', 'read', 'write'],
  rows: [
    peer('node', '`node:http` with `Session`'),
    peer('raw', '`node:http`, by hand'),
    besideByHand,
    astroSites,
    peer('express', 'Express with express-session and connect-redis'),
    peer('fastify', 'Fastify with @fastify/session and connect-redis'),
    peer('hono', 'Hono with @hono/session'),
  ],
};
