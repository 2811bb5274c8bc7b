import { setImmediate as nextTick } from 'node:timers/promises';

/** How long and how often the parts of a row take turns. */
export interface Effort {
  rounds: number;
  /** How long each runs in a round. */
  sliceMs: number;
}

/** One value a round. The machine may be busy with other things: only what was measured in one round can be compared. */
export type Samples = number[];

export interface Measured {
  /** Wall-clock microseconds that one operation takes; with many at once, that pass between two that end. */
  us: Samples;
  /** Microseconds of this process's CPU that one operation takes. */
  cpuUs: Samples;
}

/**
 * Lets the works take turns, in another order every round, after one round that does not count. Each is called again as soon as it has
 * resolved, by so many `workers` at once.
 */
export async function takeTurns<Name extends string>(
  works: Record<Name, (worker: number) => unknown>,
  { rounds, sliceMs }: Effort,
  workers = 1,
): Promise<Record<Name, Measured>> {
  const names = Object.keys(works) as Name[];
  const measured = nothingYet(names);
  for (let round = -1; round < rounds; round++) {
    for (const name of round % 2 ? names : names.toReversed()) {
      const { us, cpuUs } = await slice(works[name], sliceMs, workers);
      if (round < 0) continue;
      measured[name].us.push(us);
      measured[name].cpuUs.push(cpuUs);
    }
  }
  return measured;
}

export function nothingYet<Name extends string>(names: Name[]): Record<Name, Measured> {
  const entries = names.map((name): [Name, Measured] => [name, { us: [], cpuUs: [] }]);
  return Object.fromEntries(entries) as Record<Name, Measured>;
}

async function slice(work: (worker: number) => unknown, ms: number, workers: number) {
  await nextTick();
  const cpuBefore = process.cpuUsage();
  const startedAt = performance.now();
  const endsAt = startedAt + ms;
  let count = 0;
  const go = async (worker: number): Promise<void> => {
    while (performance.now() < endsAt) {
      // The clock is not looked at after every operation, some of which take less than a microsecond.
      const batch = workers > 1 ? 1 : 20;
      for (let index = 0; index < batch; index++) await work(worker);
      count += batch;
    }
  };
  await Promise.all(Array.from({ length: workers }, (_, worker) => go(worker)));
  const us = ((performance.now() - startedAt) * 1000) / count;
  const { user, system } = process.cpuUsage(cpuBefore);
  return { us, cpuUs: (user + system) / count };
}

export function median(samples: Samples): number {
  return quantile(samples, 0.5);
}

export function quantile(samples: Samples, part: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  const place = (sorted.length - 1) * part;
  const below = sorted[Math.floor(place)] ?? NaN;
  const above = sorted[Math.ceil(place)] ?? NaN;
  return below + (above - below) * (place % 1);
}

/** The median of what one is to the other in the same round. */
export function ratio(one: Samples, other: Samples): number {
  return median(one.map((sample, round) => sample / other[round]!));
}
