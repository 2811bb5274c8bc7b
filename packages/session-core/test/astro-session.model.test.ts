import { parse, stringify } from 'devalue';
import fc from 'fast-check';
import type { SessionDriver } from '@coatcheck/session-core';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { astros, createBrowser, type Astro, type AstroSession } from './support/astro-site.ts';
import { createBackend } from './support/backend.ts';
import { plainDriver } from './support/plain-driver.ts';
import { changeInPlace, runs, values } from './support/values.ts';

// How long the tombstone of a destroyed session rejects writes.
const TOMBSTONE_MS = 60_000;

beforeEach(() => void vi.useFakeTimers({ toFake: ['Date', 'performance'], now: Date.now() }));
afterEach(() => void vi.useRealTimers());

/**
 * One action of a page. The times are chosen so that no action happens in the very millisecond of an expiry, and nothing expires before it
 * is stored. Other tests cover these cases.
 */
type Step =
  | { do: 'get' | 'has' | 'delete' | 'change' | 'spoil'; key: string }
  | { do: 'set'; key: string; make: () => unknown; ttl: number | undefined }
  | { do: 'keys' | 'values' | 'entries' | 'regenerate' | 'destroy' }
  | { do: 'load'; visit: number }
  | { do: 'wait'; ms: number };

/** One request. It starts after a pause, and a stranger sends no cookie. */
interface Visit {
  pauseMs: number;
  isStranger: boolean;
  steps: Step[];
}

const key = fc.constantFrom('a', 'b', 'c', '__proto__', '"quoted', '\uD800');
const make = values.map((makeAll) => () => makeAll()[0]);
const ttl = fc.constantFrom(undefined, undefined, 2.003, 20.003, 600.003);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ do: fc.constantFrom('get', 'change', 'delete'), key }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('has', 'spoil'), key }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('set' as const), key, make, ttl }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('keys', 'values', 'entries', 'regenerate', 'destroy') }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('load' as const), visit: fc.nat(20) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.constantFrom(10, 200) }) },
);
const visits: fc.Arbitrary<Visit[]> = fc.array(
  fc.record({
    pauseMs: fc.constantFrom(0, 0, 10, 1000, 10_000, 90_000, 900_000),
    isStranger: fc.integer({ max: 9, min: 0 }).map((number) => number === 0),
    steps: fc.array(step, { maxLength: 7 }),
  }),
  { minLength: 1, maxLength: 8 },
);

const revivers = { URL: (href: string) => new URL(href) };
const reducers = { URL: (value: unknown) => value instanceof URL && value.href };

/** Runs a program, and records everything that a user or a page could notice. */
async function observe(astro: Astro, driver: SessionDriver, program: Visit[], identified: boolean): Promise<string[]> {
  const seen: string[] = [];
  const note = (value: unknown): void => void seen.push(stringify(value, reducers));
  const ids: (string | undefined)[] = [];

  const browser = createBrowser(astro, driver, { identified });
  const visit = async (work: (session: AstroSession) => Promise<void>): Promise<void> => {
    const before = browser.cookie;
    await browser
      .visit(async (session) => {
        await work(session);
        note(session.sessionID === undefined);
      })
      .catch((error: unknown) => note((error as Error).name));
    note(browser.cookie === undefined ? 'no cookie' : browser.cookie === before ? 'the same cookie' : 'a new cookie');
  };

  for (const { pauseMs, isStranger, steps } of program) {
    vi.advanceTimersByTime(pauseMs);
    if (isStranger) browser.cookie = undefined;
    await visit(async (session) => {
      for (const todo of steps) note(await take(todo, session, ids));
    });
    ids.push(browser.cookie);
  }
  for (const id of ids) {
    browser.cookie = id;
    await visit(async (session) => note(sorted(await session.entries())));
  }
  return seen;
}

async function take(todo: Step, session: AstroSession, ids: (string | undefined)[]): Promise<unknown> {
  switch (todo.do) {
    case 'get':
      return session.get(todo.key);
    case 'has':
      return session.has(todo.key);
    case 'delete':
      return session.delete(todo.key);
    case 'change':
      return changeInPlace(await session.get(todo.key));
    case 'spoil': {
      const value = await session.get(todo.key);
      // Astro fails to save this.
      if (value instanceof Map) value.set('function', () => undefined);
      return;
    }
    case 'set':
      return session.set(todo.key, todo.make(), todo.ttl === undefined ? {} : { ttl: todo.ttl });
    case 'keys':
      return [...(await session.keys())].sort();
    case 'values':
      return (await session.values()).length;
    case 'entries':
      return sorted(await session.entries());
    case 'regenerate':
      return session.regenerate();
    case 'destroy':
      return session.destroy();
    case 'load': {
      const id = ids[todo.visit % (ids.length || 1)];
      return id && session.load(id);
    }
    case 'wait':
      return void vi.advanceTimersByTime(todo.ms);
  }
}

/** Sorts entries by key, because their order is not guaranteed. */
function sorted(entries: [string, unknown][]): [string, unknown][] {
  return entries.sort(([first], [second]) => (first < second ? -1 : 1));
}

/** The model: a plain driver with our rules for expired and destroyed sessions. It is correct only for sequential requests. */
function modelDriver(): SessionDriver {
  const plain = plainDriver();
  const removed = new Map<string, number>();
  return {
    /** A session expires with its last entry. Astro replaces the id of a missing session. */
    async getItem(id) {
      const payload = await plain.getItem(id);
      const session = parse((payload as string | null) ?? '[["Map"]]', revivers) as Map<string, { expires?: number }>;
      const entries = [...session.values()];
      const isExpired = entries.length > 0 && entries.every(({ expires = Infinity }) => expires < Date.now());
      return isExpired ? null : payload;
    },
    /** A tombstone rejects writes for a while. */
    async setItem(id, payload) {
      if (Date.now() >= (removed.get(id) ?? 0)) await plain.setItem(id, payload);
    },
    async removeItem(id) {
      removed.set(id, Date.now() + TOMBSTONE_MS);
      await plain.removeItem(id);
    },
  };
}

describe.each(astros)('sequential requests in Astro $version', { timeout: 60_000 }, (astro) => {
  it.each([
    { name: 'with identity', identified: true },
    { name: 'without identity', identified: false },
  ])('$name, see the same as on a plain driver', async ({ identified }) => {
    await fc.assert(
      fc.asyncProperty(visits, async (program) => {
        const { driver } = createBackend();
        const expected = await observe(astro, modelDriver(), program, identified);
        expect(await observe(astro, driver, program, identified)).toEqual(expected);
      }),
      { numRuns: runs(500) },
    );
  });
});
