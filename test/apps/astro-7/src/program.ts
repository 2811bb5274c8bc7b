import type { AstroSession } from 'astro';
import { openGate, passGate } from './gates.ts';

/** One call of Astro's session API, or one thing that a test needs to happen between two of them. */
export type Step =
  | ['get', key: string]
  | ['set', key: string, value: unknown, options?: { ttl?: number }]
  | ['has', key: string]
  | ['keys']
  | ['values']
  | ['entries']
  | ['delete', key: string]
  | ['regenerate']
  | ['destroy']
  | ['load', id: string]
  | ['id']
  /** Changes what `get(key)` hands out, in place, and does not `set` it. An empty path is not possible. */
  | ['change', key: string, path: PropertyKey[], value: unknown]
  /** The steps are begun in one tick and waited for together; the result is the list of theirs. */
  | ['together', steps: Step[]]
  /** Waits until the gate is opened, by `['open', name]` in another request or by `site.gate(name).open()`. */
  | ['wait', gate: string]
  | ['open', gate: string]
  /** A random delay of at most so many milliseconds. */
  | ['jitter', maxMs: number];

export type Outcome = { value: unknown } | { error: ReportedError };

export interface ReportedError {
  name: string;
  message: string;
  cause?: ReportedError;
  [detail: string]: unknown;
}

/** Runs the steps one after the other. A step that fails does not stop those after it. */
export async function runProgram(session: AstroSession, steps: Step[]): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (const step of steps) outcomes.push(await attempt(session, step));
  return outcomes;
}

async function attempt(session: AstroSession, step: Step): Promise<Outcome> {
  try {
    return { value: await perform(session, step) };
  } catch (error) {
    return { error: report(error) };
  }
}

async function perform(session: AstroSession, step: Step): Promise<unknown> {
  switch (step[0]) {
    case 'get':
      return session.get(step[1]);
    case 'set':
      return session.set(step[1], step[2], step[3]);
    case 'has':
      return session.has(step[1]);
    case 'keys':
      return [...(await session.keys())];
    case 'values':
      return session.values();
    case 'entries':
      return session.entries();
    case 'delete':
      return session.delete(step[1]);
    case 'regenerate':
      return session.regenerate();
    case 'destroy':
      return session.destroy();
    case 'load':
      return session.load(step[1]);
    case 'id':
      return session.sessionID;
    case 'change':
      return changeInPlace(await session.get(step[1]), step[2], step[3]);
    case 'together':
      return Promise.all(step[1].map((inner) => attempt(session, inner)));
    case 'wait':
      return passGate(step[1]);
    case 'open':
      return openGate(step[1]);
    case 'jitter':
      return new Promise((resolve) => setTimeout(resolve, Math.random() * step[1]));
    default:
      throw new TypeError(`unknown step ${JSON.stringify(step)}`);
  }
}

function changeInPlace(root: any, path: PropertyKey[], value: unknown): void {
  const last = path.at(-1)!;
  const holder = path.slice(0, -1).reduce((it, key) => (it instanceof Map ? it.get(key) : it[key]), root);
  if (holder instanceof Map) holder.set(last, value);
  else holder[last] = value;
}

function report(error: unknown): ReportedError {
  if (!(error instanceof Error)) return { name: typeof error, message: String(error) };
  const details = Object.entries(error).filter(([, value]) => ['string', 'number', 'boolean'].includes(typeof value));
  const reported: ReportedError = { ...Object.fromEntries(details), name: error.name, message: error.message };
  if (error.cause !== undefined) reported.cause = report(error.cause);
  return reported;
}
