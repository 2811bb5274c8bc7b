import { setImmediate as nextTick } from 'node:timers/promises';

/** What one turn has shown. */
export interface Sample {
  /** Wall-clock microseconds that pass between the end of one operation and the next. */
  us: number;
  /** Microseconds of CPU that one operation takes of the process that carries it out. */
  cpuUs: number;
}

export type Samples<Name extends string> = Record<Name, Sample[]>;

/**
 * Lets them take turns, in another order every round, so that whatever else the machine does hits all of them. What is to be compared are the
 * samples of one round. The first rounds do not count.
 */
export async function takeTurns<Name extends string>(
  turns: Record<Name, () => Promise<Sample>>,
  rounds: number,
): Promise<Samples<Name>> {
  const names = Object.keys(turns) as Name[];
  const samples = Object.fromEntries(names.map((name): [Name, Sample[]] => [name, []])) as Samples<Name>;
  const warmUps = Math.ceil(rounds / 5);
  for (let round = -warmUps; round < rounds; round++) {
    for (const name of round % 2 ? names : names.toReversed()) {
      const sample = await turns[name]();
      if (round >= 0) samples[name].push(sample);
    }
  }
  return samples;
}

/** One turn of something that is done again as soon as it is done, by so many `workers` at once. */
export async function repeat(work: (worker: number) => unknown, ms: number, workers = 1): Promise<Sample> {
  await nextTick();
  const cpuBefore = process.cpuUsage();
  const startedAt = performance.now();
  const endsAt = startedAt + ms;
  // The clock is not looked at after every operation, some of which take less than a microsecond.
  const batch = workers > 1 ? 1 : 20;
  let count = 0;
  const go = async (worker: number): Promise<void> => {
    while (performance.now() < endsAt) {
      for (let index = 0; index < batch; index++) await work(worker);
      count += batch;
    }
  };
  await Promise.all(Array.from({ length: workers }, (_, worker) => go(worker)));
  const us = ((performance.now() - startedAt) * 1000) / count;
  const { user, system } = process.cpuUsage(cpuBefore);
  return { us, cpuUs: (user + system) / count };
}

export function median(values: number[]): number {
  return quantile(values, 0.5);
}

export function quantile(values: number[], part: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const place = (sorted.length - 1) * part;
  const below = sorted[Math.floor(place)] ?? NaN;
  const above = sorted[Math.ceil(place)] ?? NaN;
  return below + (above - below) * (place % 1);
}

export const wallOf = (samples: Sample[]): number[] => samples.map(({ us }) => us);
export const cpuOf = (samples: Sample[]): number[] => samples.map(({ cpuUs }) => cpuUs);

/** How many times as long one took as the other: the median of the rounds. */
export function ratio(one: Sample[], other: Sample[], by: keyof Sample = 'us'): number {
  return median(one.map((sample, round) => sample[by] / other[round]![by]));
}
