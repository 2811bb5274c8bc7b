import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { inspect } from 'node:util';
import fc from 'fast-check';

/** One thing that is reached from outside, with what may come and what must hold then. */
export interface Target {
  name: string;
  /** How many cases `pnpm fuzz` runs. */
  cases: number;
  /** How many cases every test run runs. */
  casesInTests: number;
  open(): Promise<OpenTarget> | OpenTarget;
}

export interface OpenTarget {
  property: Property;
  close?(): Promise<void> | void;
}

interface Property {
  input: fc.Arbitrary<unknown>;
  run(input: unknown): Promise<void> | void;
}

/** `run` throws when what a user was promised does not hold for this input. */
export function property<Input>(input: fc.Arbitrary<Input>, run: (input: Input) => Promise<void> | void): Property {
  return { input, run };
}

export interface FuzzOptions {
  seed: number;
  cases: number;
  /** Where fast-check's own path of a failure leads; without one, all cases from the first on. */
  path?: string | undefined;
  /** Called before every case; the number of the case is its path. */
  onCase?: () => void;
  /** How long one case may take. Without it, as long as it takes: a machine that does other things as well is no finding. */
  longestMs?: number;
}

export interface Finding {
  /** With the seed, all that is needed to see it again. */
  path: string;
  text: string;
}

/** Runs the cases of one target until one fails. */
export async function fuzz(
  target: Target,
  { seed, cases, path, onCase, longestMs }: FuzzOptions,
): Promise<Finding | undefined> {
  const heard = listen();
  const { property: own, close } = await target.open();
  const guarded = fc.asyncProperty(own.input, async (input) => {
    onCase?.();
    const startedAt = performance.now();
    await own.run(input);
    const ms = performance.now() - startedAt;
    assert(longestMs === undefined || ms < longestMs, `It took ${Math.round(ms)} ms.`);
    const told = heard.splice(0).find((text) => text.includes(SECRET));
    assert(told === undefined, 'What must stay secret was told.', told);
    assertPrototypes();
  });
  try {
    const plugins = longestMs === undefined ? [] : [fc.timeout(2 * longestMs)];
    const details = await fc.check(guarded, { seed, numRuns: cases, plugins, ...(path && { path }) });
    if (!details.failed) return undefined;
    const { counterexamplePath, errorInstance } = details;
    const counterexample = details.counterexample as [unknown] | null;
    const reason = errorInstance instanceof Error ? describe(errorInstance) : String(errorInstance);
    return { path: counterexamplePath ?? '0', text: `${reason}\nInput: ${fc.stringify(counterexample?.[0])}` };
  } finally {
    await close?.();
    heard.stop();
  }
}

/** Part of every id, cookie, stored value and credential here, and of nothing that may be told. */
export const SECRET = 'dec0de5ec2e7';

const CODES = new Set<unknown>([
  'configuration',
  'invalid-id',
  'invalid-data',
  'timeout',
  'interrupted',
  'unavailable',
  'refused',
  'committed',
]);

/** An error that a user can do something with: one of the two kinds that are documented, in our words, and nothing secret in it. */
export function assertOurs(error: unknown): asserts error is Error & { code?: string } {
  const { name, message, code } = error as Error & { code?: string };
  const isDriverError = name === 'SessionDriverError' && CODES.has(code) && /^\[session-[\w-]+\] \S/.test(message);
  const isTypeError = error instanceof TypeError && /^(?:`|fromEnv\(|sweep\()/.test(message);
  if (!(error instanceof Error && (isDriverError || isTypeError))) {
    throw new Error('The error is not one of ours.', { cause: error });
  }
  if (describe(error).includes(SECRET)) throw new Error('The error holds what must stay secret.', { cause: error });
}

/** What the work resolves to, or the error that it failed with, which is one of ours. */
export async function attempt<Result>(work: () => Promise<Result> | Result): Promise<Result | Error> {
  try {
    return await work();
  } catch (error) {
    assertOurs(error);
    return error;
  }
}

// Lists of a billion holes are found, too.
const SHORT = { depth: 6, maxArrayLength: 50, maxStringLength: 1000, breakLength: Infinity, compact: true };

export function assert(holds: boolean, what: string, found?: unknown): asserts holds {
  if (!holds) throw new Error(found === undefined ? what : `${what} Found: ${inspect(found, SHORT)}`);
}

/** Everything that a log could print of an error. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const own = Object.entries(error).map(([name, value]) => `${name}: ${name === 'cause' ? '' : String(value)}`);
  const cause = error.cause === undefined ? '' : `\nCause: ${describe(error.cause)}`;
  return [error.message, error.stack, ...own].join('\n') + cause;
}

const EVENTS = ['destroyed-write', 'stale-write', 'corrupt-field', 'eviction', 'outage', 'recovery'];

/** Collects what is said to nobody in particular: diagnostics, warnings, the console. */
function listen(): string[] & { stop(): void } {
  const heard: string[] = [];
  const hear = (...words: unknown[]): void => {
    heard.push(words.map((word) => (word instanceof Error ? describe(word) : JSON.stringify(word))).join(' '));
  };
  const onMessage = (message: unknown, channel: string | symbol): void => hear(channel.toString(), message);
  const original = { warn: console.warn, error: console.error, log: console.log };
  for (const event of EVENTS) subscribe(`coatcheck:${event}`, onMessage);
  process.on('warning', hear);
  Object.assign(console, { warn: hear, error: hear, log: hear });
  const stop = (): void => {
    for (const event of EVENTS) unsubscribe(`coatcheck:${event}`, onMessage);
    process.off('warning', hear);
    Object.assign(console, original);
  };
  return Object.assign(heard, { stop });
}

const prototypes = [Object, Array, Map, Function, String, Error].map((type) => type.prototype as object);
const describePrototypes = (): unknown[] =>
  prototypes.flatMap((prototype) =>
    Reflect.ownKeys(prototype).flatMap((key) => {
      const { value, get } = Reflect.getOwnPropertyDescriptor(prototype, key)!;
      return [key, value ?? get];
    }),
  );
const pristine = describePrototypes();

function assertPrototypes(): void {
  const now = describePrototypes();
  const isPristine = now.length === pristine.length && now.every((item, index) => Object.is(item, pristine[index]));
  assert(isPristine, 'A prototype was changed.');
}
