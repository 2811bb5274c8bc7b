import { startRedis } from '@coatcheck/test-support/redis-server';
import { startLibrary, type LibraryName, type Turn } from './library.ts';
import { cpuOf, quantile, takeTurns } from './measure.ts';
import { digits, spread, type Group, type Row } from './report.ts';

/** Astro's session on unstorage's driver and on ours, with so many different sessions. */
function row(name: string, what: string, goal: number | undefined, turn: Omit<Turn, 'ms'>, onRedis = false): Row {
  return {
    name,
    what,
    reach: goal === undefined ? '' : `at most ${goal}`,
    async run(quick) {
      await using redis = onRedis ? await startRedis({ args: ['--appendonly', 'no'] }) : undefined;
      using stack = new DisposableStack();
      const start = (library: LibraryName) => {
        const started = stack.use(startLibrary(library, redis?.url));
        return () => started.turn({ ...turn, ms: onRedis ? 50 : 20 });
      };
      const took = await takeTurns({ theirs: start('astro'), ours: start('face') }, quick ? 20 : 120);
      const ratios = took.ours.map(({ cpuUs }, round) => cpuUs / took.theirs[round]!.cpuUs);
      const median = quantile(ratios, 0.5);
      return {
        cells: [spread(cpuOf(took.theirs), 'µs'), spread(cpuOf(took.ours), 'µs')],
        ours: `${digits(median)} (${digits(quantile(ratios, 0.25))}–${digits(quantile(ratios, 0.75))})`,
        ...(goal !== undefined && { reached: median <= goal }),
      };
    },
  };
}

const typical = { fill: 'login', oneByOne: true } as const;
const large = { fill: 'loginLarge', oneByOne: true } as const;

export const astroDriver: Group = {
  title: "Astro's session, on unstorage's driver and on ours",
  about:
    'CPU time of one request: medians, and quartiles between brackets. `ours` is the ratio in the same round: below 1, ours takes less. The driver ' +
    'keeps the parsed sessions that were read most recently. So the rows with many sessions, which are visited one after another, show what it costs ' +
    'when none of them is kept.',
  columns: ['Astro, unstorage', 'Astro, Coatcheck'],
  rows: [
    row('astro-read', 'memory, typical: read one key, 10 sessions', 0.9, { ...typical, page: 'read', visitors: 10 }),
    row('astro-read-1000', '1,000 sessions', undefined, { ...typical, page: 'read', visitors: 1000 }),
    row('astro-read-cold', '100,000 sessions', 1.45, { ...typical, page: 'read', visitors: 100_000 }),
    row('astro-set', 'memory, typical: set one key, 10 sessions', 1.4, { ...typical, page: 'write', visitors: 10 }),
    row('astro-set-1000', '1,000 sessions', undefined, { ...typical, page: 'write', visitors: 1000 }),
    row('astro-set-cold', '100,000 sessions', undefined, { ...typical, page: 'write', visitors: 100_000 }),
    row('astro-change', 'memory, typical: read, change and set the cart, 10 sessions', 1.5, {
      ...typical,
      page: 'change',
      visitors: 10,
    }),
    row('astro-large-read', 'memory, 50 kB: read one key, 10 sessions', 0.55, { ...large, page: 'read', visitors: 10 }),
    row('astro-large-read-cold', '1,000 sessions', 1.7, { ...large, page: 'read', visitors: 1000 }),
    row('astro-large-set', 'memory, 50 kB: set one key, 10 sessions', 1.2, { ...large, page: 'write', visitors: 10 }),
    row('astro-large-set-cold', '1,000 sessions', undefined, { ...large, page: 'write', visitors: 1000 }),
    row(
      'astro-redis-read',
      'Redis, typical: read one key, 128 sessions at once',
      0.85,
      { fill: 'login', page: 'read', visitors: 128 },
      true,
    ),
    row(
      'astro-redis-set',
      'Redis, typical: set one key, 128 sessions at once',
      1.05,
      { fill: 'login', page: 'write', visitors: 128 },
      true,
    ),
  ],
};
