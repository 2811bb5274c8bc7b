// Measures the speed of one folder with few and with many sessions:
//   node packages/session-fs/test/many.ts [number of sessions, default 100000]
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { valueStore, type Change } from '@coatcheck/session-core/driver';
import { openFiles } from '../src/files.ts';

const many = Number(process.argv[2] ?? 100_000);
const directory = mkdtempSync(join(tmpdir(), 'coatcheck-fs-many-'));
const backend = await openFiles(directory, 5000);
const store = valueStore(backend);
const call = () => ({ signal: new AbortController().signal });
const change = (lifetimeMs: number): Change => ({
  set: new Map([['user', `:${JSON.stringify('x'.repeat(400))}`]]),
  unset: [],
  lifetimeMs,
  defaultTtlMs: lifetimeMs,
  now: Date.now(),
});

/** Runs an operation once for each key, eight at a time. Resolves to operations per second. */
async function rate(keys: number[], work: (key: string) => Promise<unknown>): Promise<number> {
  const rest = [...keys];
  const started = performance.now();
  const runner = async () => {
    for (let key = rest.pop(); key !== undefined; key = rest.pop()) await work(`session:key${key}`);
  };
  await Promise.all(Array.from({ length: 8 }, runner));
  return Math.round((keys.length / (performance.now() - started)) * 1000);
}

const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => from + index);
const sample = (below: number) => Array.from({ length: 2000 }, () => Math.floor(Math.random() * below));

async function measure(count: number): Promise<Record<string, number>> {
  const reading = await rate(sample(count), (key) => store.read(key, call()));
  const changing = await rate(sample(count), (key) => store.patch(key, change(3_600_000), call()));
  const touching = await rate(sample(count), (key) => store.read(key, { ...call(), extendIdleMs: 3_600_000 }));
  return { sessions: count, 'reads/s': reading, 'changes/s': changing, 'reads with idleTtl/s': touching };
}

try {
  await rate(numbers(0, 1000), (key) => store.patch(key, change(3_600_000), call()));
  const few = await measure(1000);
  const created = await rate(numbers(1000, many), (key) => store.patch(key, change(3_600_000), call()));
  console.table([few, await measure(many)]);
  console.log(`new sessions, up to ${many}: ${created}/s`);

  // A sweep that finds nothing ends after all folders, or after half of its deadline.
  const started = performance.now();
  await (
    await openFiles(directory, 1_200_000)
  ).sweep!(1000, call());
  console.log(`looking through all of them once: ${Math.round(performance.now() - started)} ms`);
} finally {
  rmSync(directory, { recursive: true });
}
