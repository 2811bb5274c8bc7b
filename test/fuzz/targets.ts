import { calls } from './calls.ts';
import { cookies } from './cookies.ts';
import { options } from './options.ts';
import { payloads } from './payloads.ts';
import { records, redis } from './records.ts';
import type { Target } from './target.ts';

export const targets: Target[] = [cookies, payloads, records, redis, options, calls];

export function newSeed(): number {
  return Math.floor(Math.random() * 2 ** 31);
}

/** What shows a finding again. */
export function commandFor(target: Target, seed: number, path: string): string {
  return `npx --yes pnpm@12.21.0 fuzz --target ${target.name} --seed ${seed} --path ${path}`;
}
