import { defineDriver, type SessionStore, type SessionDriver } from '@coatcheck/session-core/driver';
import { createMemorySessionStorage } from '@remix-run/session/memory-storage';
import { Redis } from 'ioredis';
import type { Driver } from 'unstorage';
import unstorageMemory from 'unstorage/drivers/memory';
import { startRedis } from '@coatcheck/test-support/redis-server';
import { openMemoryStore } from '../packages/session-memory/src/store.ts';
import { pages, type PageName } from './pages.ts';
import type { Group, Row } from './report.ts';
import { listen, servers, type ServerName } from './servers.ts';
import { anonymous, astro, astroWithOurs, remix, session, withCookie, type Visit } from './subjects.ts';

/** Something that serves requests, and knows how often it asked its store. */
interface Counted {
  /** Calls that the last request made. */
  calls: number;
  visit(request: Request, page: PageName): Promise<string | undefined>;
  /** Loses every session: the cookies that were handed out name none that the store knows. */
  forget(): Promise<void>;
}

/** Resolves to the cookie that the request which counts was answered with. */
type Case = (subject: Counted) => Promise<string | undefined>;

const visitor = async (subject: Counted): Promise<Request> =>
  withCookie((await subject.visit(anonymous, 'login'))!.split(';')[0]!);

const known =
  (page: PageName): Case =>
  async (subject) => {
    const request = await visitor(subject);
    subject.calls = 0;
    return subject.visit(request, page);
  };

const unknown: Case = async (subject) => {
  const request = await visitor(subject);
  await subject.forget();
  subject.calls = 0;
  return subject.visit(request, 'inTurn');
};

const withoutCookie =
  (page: PageName): Case =>
  async (subject) => {
    subject.calls = 0;
    return subject.visit(anonymous, page);
  };

const cases: { name: string; what: string; floor: number; face: number; visit: Case }[] = [
  { name: 'calls-read', what: 'reads one key', floor: 1, face: 1, visit: known('read') },
  { name: 'calls-set', what: 'sets one key, reads none', floor: 1, face: 2, visit: known('write') },
  { name: 'calls-new', what: 'sets, as a new visitor', floor: 1, face: 2, visit: withoutCookie('write') },
  { name: 'calls-same', what: 'reads a key and sets it to what it is', floor: 1, face: 2, visit: known('same') },
  { name: 'calls-five', what: 'reads five keys at once', floor: 1, face: 1, visit: known('atOnce') },
  {
    name: 'calls-unknown',
    what: 'reads five keys in turn, with a cookie that nobody knows',
    floor: 1,
    face: 5,
    visit: unknown,
  },
  { name: 'calls-anonymous', what: 'reads one key, without a cookie', floor: 0, face: 0, visit: withoutCookie('read') },
];

type Method = (...args: unknown[]) => unknown;

/** A library without a server, on a store whose methods are watched. */
function inProcess<Store extends object>(
  makeStore: () => Store,
  methods: (keyof Store)[],
  visitWith: (store: Store) => Visit,
  isCall: (argument: unknown, answer: unknown) => boolean = () => true,
): Counted {
  let store = makeStore();
  const watch =
    (method: keyof Store) =>
    async (...args: unknown[]) => {
      const answer = await (store[method] as Method)(...args);
      if (isCall(args[0], answer)) subject.calls++;
      return answer;
    };
  const visit = visitWith({ ...store, ...Object.fromEntries(methods.map((method) => [method, watch(method)])) });
  const subject: Counted = {
    calls: 0,
    visit: (request, page) => visit(request, pages[page]),
    async forget() {
      store = makeStore();
    },
  };
  return subject;
}

const openStore = (): SessionStore => openMemoryStore({});

function driverOf(store: SessionStore): SessionDriver {
  return defineDriver({ name: `bench-${crypto.randomUUID()}`, options: {}, open: () => store })();
}

/** A server, with the commands counted that it sends to Redis. */
async function overHttp(name: ServerName, redis: Redis, redisUrl: string): Promise<Counted> {
  const listener = await servers[name]({ url: redisUrl, onCall: () => subject.calls++ });
  const url = await listen(listener);
  const subject: Counted = {
    calls: 0,
    async visit(request, page) {
      const response = await fetch(`${url}/${page}`, { headers: { cookie: request.headers.get('cookie') ?? '' } });
      const text = await response.text();
      if (!response.ok) throw new Error(`${name} answered /${page} with ${response.status}: ${text}`);
      return response.headers.getSetCookie()[0];
    },
    async forget() {
      await redis.flushall();
    },
  };
  return subject;
}

// Remix's storage is asked at every request, also when there is nothing to look up or to keep.
const isRemixCall = (argument: unknown, answer: unknown): boolean => argument !== null && answer !== null;

const columns = [
  'Astro, unstorage',
  'Remix',
  'express-session',
  '@fastify/session',
  '@hono/session',
  'Session',
  'Astro, Coatcheck',
];

let subjects: Promise<Counted[]> | undefined;

async function createSubjects(): Promise<Counted[]> {
  const { url } = await startRedis();
  const redis = new Redis(url);
  return [
    inProcess((): Driver => unstorageMemory(), ['getItem', 'setItem', 'removeItem'], astro),
    inProcess(() => createMemorySessionStorage(), ['read', 'save'], remix, isRemixCall),
    await overHttp('express', redis, url),
    await overHttp('fastify', redis, url),
    await overHttp('hono', redis, url),
    inProcess(openStore, ['read', 'patch', 'destroy'], (store) => session(driverOf(store))),
    inProcess(openStore, ['read', 'patch', 'destroy'], (store) => astroWithOurs(driverOf(store))),
  ];
}

const rows = cases.map(({ name, what, floor, face, visit }): Row => ({
  name,
  what,
  reach: `Session: ${floor}; Astro: ${face}`,
  async run() {
    const counts: number[] = [];
    const cells: string[] = [];
    for (const subject of await (subjects ??= createSubjects())) {
      const cookie = await visit(subject);
      // Whoever stored nothing must not be given a cookie either.
      const isTracked = floor === 0 && cookie !== undefined;
      counts.push(isTracked ? NaN : subject.calls);
      cells.push(isTracked ? `${subject.calls}, and a cookie` : `${subject.calls}`);
    }
    const [ofSession, ofFace] = counts.slice(-2);
    return { cells, ours: cells.at(-2)!, reached: ofSession === floor && ofFace === face, binds: true };
  },
}));

export const calls: Group = {
  title: 'Store calls per request',
  about:
    'How often one request asks its store. Not measured but counted: these rows bind, and the command fails when one is not met exactly. ' +
    'Express, Fastify and Hono are counted in commands to Redis, the others in calls of the store; the two are the same here. ' +
    'What Astro itself asks for is beyond a driver: it reads once more before it saves, and reads an unknown id again and again.',
  columns,
  rows,
};
