import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { fuzz, type Finding, type Target } from './target.ts';
import { commandFor, newSeed, targets } from './targets.ts';

// pnpm fuzz [--target cookies] [--seed 1] [--path 2:0] [--cases 1000]

interface Job {
  name: string;
  seed: number;
  cases: number;
  path: string | undefined;
  /** How many cases were begun. */
  begun: Int32Array<SharedArrayBuffer>;
}

const STUCK_AFTER_MS = 30_000;

if (isMainThread) await main();
else await work(workerData as Job);

async function main(): Promise<void> {
  const text = { type: 'string' } as const;
  const { values } = parseArgs({ options: { target: text, seed: text, path: text, cases: text } });
  const chosen = targets.filter(({ name }) => values.target === undefined || values.target === name);
  if (chosen.length === 0) throw new Error(`--target is one of ${targets.map(({ name }) => name).join(', ')}.`);
  const seed = values.seed === undefined ? newSeed() : Number(values.seed);
  console.log(`Seed ${seed}`);

  const startedAt = performance.now();
  let total = 0;
  let findings = 0;
  for (const target of chosen) {
    const begun = new Int32Array(new SharedArrayBuffer(4));
    const cases = Number(values.cases ?? target.cases);
    const targetStartedAt = performance.now();
    const finding = await inWorker({ name: target.name, seed, cases, path: values.path, begun });
    total += begun[0]!;
    console.log(
      [target.name.padEnd(10), count(begun[0]!), seconds(targetStartedAt), finding ? 'FAILED' : 'ok'].join('  '),
    );
    if (!finding) continue;
    findings++;
    console.log(`\n${finding.text}\n\nAgain: ${commandFor(target, seed, finding.path)}\n`);
  }
  console.log(['all'.padEnd(10), count(total), seconds(startedAt), `${findings} failed`].join('  '));
  process.exit(findings > 0 ? 1 : 0);
}

/** In a thread of its own, because nothing else can tell that a loop does not end. */
function inWorker(job: Job): Promise<Finding | undefined> {
  const worker = new Worker(new URL(import.meta.url), { workerData: job });
  return new Promise((resolve, reject) => {
    let last = -1;
    const watch = setInterval(() => {
      const current = Atomics.load(job.begun, 0);
      if (current === last) resolve({ path: job.path ?? String(current - 1), text: 'This case does not end.' });
      last = current;
    }, STUCK_AFTER_MS);
    worker.once('message', resolve);
    worker.once('error', reject);
    worker.once('exit', () => {
      clearInterval(watch);
      reject(new Error('It ended early.'));
    });
  }).finally(() => void worker.terminate()) as Promise<Finding | undefined>;
}

async function work({ name, seed, cases, path, begun }: Job): Promise<void> {
  const target = targets.find((it) => it.name === name) as Target;
  const onCase = (): void => void Atomics.add(begun, 0, 1);
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
  parentPort!.postMessage(await fuzz(target, { seed, cases, path, onCase, longestMs: 5000 }));
}

function count(cases: number): string {
  return `${cases.toLocaleString('en')} cases`.padStart(15);
}

function seconds(since: number): string {
  return `${((performance.now() - since) / 1000).toFixed(1)} s`.padStart(8);
}
