import { fork } from 'node:child_process';
import { once } from 'node:events';
import memory from '@coatcheck/session-memory/runtime';
import redisRuntime from '@coatcheck/session-redis/runtime';
import { createMemorySessionStorage } from '@remix-run/session/memory-storage';
import { Redis } from 'ioredis';
import unstorageMemory from 'unstorage/drivers/memory';
import unstorageRedis from 'unstorage/drivers/redis';
import { repeat, type Sample } from './measure.ts';
import { pages, type PageName } from './pages.ts';
import { anonymous, astro, astroWithOurs, HSET, raw, remix, session, visitorOf, type Visit } from './subjects.ts';

/** The libraries that are compared without a server around them, on memory or on a Redis. */
const libraries = {
  astro: (url?: string) => astro(url ? unstorageRedis({ url }) : unstorageMemory()),
  remix: () => remix(createMemorySessionStorage()),
  raw: (url?: string) => raw(new Redis(url!)),
  session: (url?: string) => session(url ? redisRuntime({ url }) : memory()),
  face: (url?: string) => astroWithOurs(url ? redisRuntime({ url }) : memory()),
} satisfies Record<string, (url?: string) => Visit>;

export type LibraryName = keyof typeof libraries;

export interface Turn {
  page: PageName;
  /** The page that has filled the visitors' sessions; without, they have none. */
  fill?: PageName | undefined;
  visitors: number;
  /** Whether the visitors come one after another. Default: all of them come at once, again and again. */
  oneByOne?: boolean;
  ms: number;
}

export interface Library extends Disposable {
  turn(turn: Turn): Promise<Sample>;
}

/** Starts it in a process of its own: the garbage that one leaves behind must not slow another down. */
export function startLibrary(name: LibraryName, redisUrl?: string): Library {
  const child = fork(import.meta.filename, redisUrl ? [name, redisUrl] : [name]);
  return {
    async turn(turn) {
      child.send(turn);
      const [sample] = (await once(child, 'message')) as [Sample];
      return sample;
    },
    [Symbol.dispose]: () => void child.kill(),
  };
}

if (import.meta.main) {
  const [name, redisUrl] = process.argv.slice(2) as [LibraryName, string | undefined];
  const visit: Visit = libraries[name](redisUrl);
  if (name === 'raw') await new Redis(redisUrl!).script('LOAD', HSET);
  const visitors: Request[] = [];
  process.once('disconnect', () => process.exit());
  let next = 0;
  process.on('message', ({ page, fill, visitors: count, oneByOne = false, ms }: Turn) => {
    const run = async (): Promise<void> => {
      while (visitors.length < count) visitors.push(fill ? await visitorOf(visit, pages[fill]) : anonymous);
      const visitorFor = (worker: number): Request => visitors[oneByOne ? next++ % count : worker]!;
      process.send!(await repeat((worker) => visit(visitorFor(worker), pages[page]), ms, oneByOne ? 1 : count));
    };
    void run();
  });
}
