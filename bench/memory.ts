import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import memoryRuntime from '@coatcheck/session-memory/runtime';
import { LRUCache } from 'lru-cache';
import unstorageLru from 'unstorage/drivers/lru-cache';
import unstorageMemory from 'unstorage/drivers/memory';
import type { Page } from './pages.ts';
import { digits, type Group } from './report.ts';
import { anonymous, astro, session, type Visit } from './subjects.ts';

const WEEK_S = 7 * 86_400;

/** Small: what a site knows of somebody who has signed in. Astro writes it as 182 characters. */
const signIn: Page = async (opened) => {
  await opened.set('user', { id: 4711, name: 'Ada Lovelace', role: 'editor', since: '2024-05-06T07:08:09.123' });
  await opened.set('locale', 'en-GB');
};

/** Each stores one more session whenever it is called. */
const subjects: Record<string, (count: number) => () => unknown> = {
  'unstorage memory': () => visits(astro(unstorageMemory())),
  'unstorage lru-cache': (count) => visits(astro(unstorageLru({ max: count }))),
  'lru-cache with ttl': (count) => {
    const cache = new LRUCache<string, string>({ max: count });
    return visits(
      astro({
        getItem: (key: string) => cache.get(key) ?? null,
        setItem: (key: string, value: string) => cache.set(key, value, { ttl: WEEK_S * 1000 }),
        removeItem: (key: string) => cache.delete(key),
      }),
    );
  },
  'session-memory': (count) => visits(session(memoryRuntime({ maxSessions: count, maxBytes: 2 ** 31, ttl: WEEK_S }))),
};

const visits = (visit: Visit) => () => visit(anonymous, signIn);

/** Bytes that one session takes, of the heap and beside it. */
async function measure(subject: string, count: number): Promise<number> {
  const store = subjects[subject]!(count);
  await store();
  const before = bytes();
  for (let index = 1; index < count; index++) await store();
  return (bytes() - before) / (count - 1);
}

function bytes(): number {
  global.gc!();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

const run = promisify(execFile);

/** In a process of its own for each, so that none finds what another has left. */
async function measureAll(count: number): Promise<number[]> {
  const measured: number[] = [];
  for (const subject of Object.keys(subjects)) {
    const args = ['--expose-gc', '--max-old-space-size=4096', import.meta.filename, subject, String(count)];
    measured.push(Number((await run(process.execPath, args)).stdout));
  }
  return measured;
}

export const memory: Group = {
  title: 'A million sessions in memory',
  about:
    'Bytes that each of a million small sessions takes, its key and all bookkeeping included (100,000 with `--quick`). Of these only lru-cache ' +
    "and ours expire anything: Astro gives unstorage's drivers no lifetime. `node --expose-gc bench/memory.ts` prints this alone.",
  columns: Object.keys(subjects),
  rows: [
    {
      name: 'memory',
      what: 'a session that Astro writes as 182 characters',
      reach: '400 B',
      async run(quick) {
        const measured = await measureAll(quick ? 100_000 : 1_000_000);
        const own = measured.at(-1)!;
        return { cells: measured.map((size) => `${digits(size)} B`), ours: `${digits(own)} B`, reached: own <= 400 };
      },
    },
  ],
};

if (import.meta.main) {
  const [subject, count] = process.argv.slice(2);
  if (subject) process.stdout.write(String(await measure(subject, Number(count))));
  else
    for (const [index, size] of (await measureAll(1_000_000)).entries())
      console.log(`${Object.keys(subjects)[index]}: ${digits(size)} B`);
}
