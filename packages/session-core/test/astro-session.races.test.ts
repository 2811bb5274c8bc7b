import { AsyncLocalStorage } from 'node:async_hooks';
import fc from 'fast-check';
import { defineDriver, type SessionStore, type SessionDriver } from '@coatcheck/session-core/driver';
import { describe, expect, it } from 'vitest';
import {
  astros,
  createBrowser,
  createCookies,
  newRequest,
  type Astro,
  type AstroSession,
} from './support/astro-site.ts';
import { openMemoryStore } from '../../session-memory/src/store.ts';
import { plainDriver } from './support/plain-driver.ts';
import { runs } from './support/values.ts';

/** One action of a page on the session that all pages of a race share. */
type Step =
  | { do: 'get' | 'set' | 'delete' | 'change'; key: string }
  | { do: 'take flash' | 'rewrite all' | 'delete all' | 'think' | 'two parts' | 'regenerate' | 'destroy' };

const KEYS = ['a', 'b', 'c', 'd', 'e', 'flash'];
const key = fc.constantFrom(...KEYS);
const small = fc.record({ do: fc.constantFrom('get', 'set', 'set', 'delete', 'change'), key });
const quiet = fc.record({ do: fc.constantFrom('take flash', 'think') });
const large = fc.record({ do: fc.constantFrom('rewrite all', 'delete all', 'two parts') });
const leaving = fc.record({ do: fc.constantFrom('regenerate', 'regenerate', 'destroy') });

function requests(count: number, ...steps: fc.Arbitrary<Step>[]): fc.Arbitrary<Step[][]> {
  const weighted = steps.map((arbitrary) => ({ arbitrary, weight: arbitrary === small ? 5 : 2 }));
  return fc.array(fc.array(fc.oneof(...weighted), { minLength: 1, maxLength: 5 }), { minLength: 2, maxLength: count });
}

const race = requests(6, small, quiet, large);
const raceOfLeaving = fc
  .tuple(requests(4, small, quiet, large), requests(3, small, quiet, large, leaving))
  .map((parts) => parts.flat());

type Values = Map<string, unknown>;
const DELETED = Symbol('deleted');

/** What one request did, from the view of its page. */
interface Visit {
  /** Every key that it read. */
  seen: Set<string>;
  /** The values that it set or changed in place, and the keys that it deleted. */
  own: Values;
  /** The keys that it set or deleted. They have no marks any more. */
  replaced: Set<string>;
  /** Whether Astro has loaded the session. If not, Astro remembers deleted keys until it does. */
  isLoaded: boolean;
  /** Whether Astro has a reason to save the session. */
  isDirty: boolean;
  /** The index of the process that served it. */
  process: number;
  /**
   * The positions of three events in the order of all such events: it began to save, its change was sent, and it began to remove the shared
   * session. -1: the event did not happen.
   */
  savedAt: number;
  writtenAt: number;
  removedAt: number;
}

/** One operation that reached the backend. A log contains them in the order in which the backend carried them out. */
interface Event {
  visit: Visit;
  what: 'write' | 'remove';
  id: string;
  isRejected: boolean;
}

/** Runs an operation of a backend with a delay before and after it, and logs writes and removals. */
type Slow = <Answer>(work: () => Promise<Answer>, what?: Event['what']) => Promise<Answer>;

type MakeDriver = (slow: Slow) => () => SessionDriver;

/** Creates our driver, once for each process, on one slow backend. */
const coatcheck: MakeDriver = (slow) => {
  const store = openMemoryStore({ maxSessions: 100 });
  const slowStore: SessionStore = {
    atomic: true,
    read: (name, call) => slow(() => store.read(name, call)),
    patch: (name, change, call) => slow(() => store.patch(name, change, call), 'write'),
    destroy: (name, ms, call) => slow(() => store.destroy(name, ms, call), 'remove'),
  };
  return defineDriver({ name: `races-${crypto.randomUUID()}`, options: {}, open: () => slowStore });
};

const plain: MakeDriver = (slow) => {
  const driver = plainDriver();
  return () => ({
    getItem: (id) => slow(() => driver.getItem(id)),
    setItem: (id, payload) => slow(() => driver.setItem(id, payload), 'write'),
    removeItem: (id) => slow(() => driver.removeItem(id), 'remove'),
  });
};

interface Outcome {
  id: string;
  before: Values;
  log: Event[];
  visits: Visit[];
  /** What a later request with this id reads; null when there is no such session. */
  look(id: string): Promise<Values | null>;
}

interface Conditions {
  makeDriver: MakeDriver;
  /** Whether requests have an identity. */
  identified?: boolean;
}

/** The current request, and the session id of its current operation. One storage for all programs, because Node 22 never frees one. */
const current = new AsyncLocalStorage<{ visit: Visit; id: string }>();

/** Runs all requests concurrently. The scheduler decides the order in which they and the backend proceed. */
async function run(
  astro: Astro,
  program: Step[][],
  scheduler: fc.Scheduler,
  { makeDriver, identified = true }: Conditions,
): Promise<Outcome> {
  let isRacing = false;
  const wait = async (): Promise<void> => (isRacing ? scheduler.schedule(Promise.resolve()) : undefined);
  const log: Event[] = [];
  let now = 0;
  const openDriver = makeDriver(async (work, what) => {
    const { visit } = current.getStore() ?? {};
    if (visit && what === 'write') visit.writtenAt = now++;
    await wait();
    const answer = await work();
    const event = current.getStore();
    if (event && what) log.push({ ...event, what, isRejected: answer === 'destroyed' });
    await wait();
    return answer;
  });
  const about = <Result>(id: string, work: () => Result): Result => {
    const context = current.getStore();
    return context ? current.run({ ...context, id }, work) : work();
  };
  const observe = (driver: SessionDriver): SessionDriver => ({
    async getItem(id) {
      const payload = await driver.getItem(id);
      const { visit } = current.getStore() ?? {};
      if (visit && payload !== null) {
        visit.isLoaded = true;
        for (const name of keysOf(payload)) visit.seen.add(name);
      }
      return payload;
    },
    setItem(name, payload) {
      const { visit } = current.getStore() ?? {};
      if (visit) visit.savedAt = now++;
      return about(name, () => driver.setItem(name, payload));
    },
    removeItem(name) {
      const { visit } = current.getStore() ?? {};
      if (visit && name === id) visit.removedAt = now++;
      return about(name, () => driver.removeItem(name));
    },
  });
  const processes = [observe(openDriver()), observe(openDriver())];

  const browser = createBrowser(astro, processes[0]!);
  const before: Values = new Map(
    ['kept', ...KEYS].map((name, index) => [name, index % 2 === 0 ? { was: name } : name]),
  );
  await browser.visit((session) => before.forEach((value, name) => session.set(name, value)));
  const id = browser.cookie!;

  isRacing = true;
  const visits = program.map((_steps, index): Visit => ({
    seen: new Set(),
    own: new Map(),
    replaced: new Set(),
    isLoaded: false,
    isDirty: false,
    process: index % 2,
    savedAt: -1,
    writtenAt: -1,
    removedAt: -1,
  }));
  const racing = visits.map((visit, index) => {
    const session = astro.openSession(processes[index % 2]!, createCookies(id));
    const request = newRequest({ identified });
    return request
      .run(() => current.run({ visit, id }, () => visitPage(astro, session, program[index]!, visit, index * 100, wait)))
      .finally(() => request.answer());
  });
  await scheduler.waitFor(Promise.all(racing));
  // Astro does not wait for every removal.
  await scheduler.waitIdle();
  isRacing = false;

  return {
    id,
    before,
    log,
    visits,
    async look(sessionId) {
      const driver = openDriver();
      if ((await driver.getItem(sessionId)) === null) return null;
      return createBrowser(astro, driver, {}, sessionId).visit(async (session) => new Map(await session.entries()));
    },
  };
}

function keysOf(payload: unknown): string[] {
  const flat = (typeof payload === 'string' ? JSON.parse(payload) : payload) as unknown[];
  const [, ...positions] = flat[0] as [string, ...number[]];
  return positions.filter((_, place) => place % 2 === 0).map((position) => flat[position] as string);
}

/** Runs one request of the race. No two requests set the same value. */
async function visitPage(
  astro: Astro,
  session: AstroSession,
  todo: Step[],
  visit: Visit,
  firstNumber: number,
  think: () => Promise<void>,
): Promise<void> {
  let number = firstNumber;
  // In Astro, a key that is deleted before the session was read stays deleted, even when it is set afterwards.
  const lostSets = new Set<string>();
  let hasId = true;
  const read = async <Result>(work: () => Promise<Result>): Promise<Result> => {
    visit.isLoaded ||= !hasId;
    return work();
  };
  const get = (name: string): Promise<unknown> => read(() => session.get(name));
  const names = async (): Promise<string[]> => [...(await read(() => session.keys()))];
  const set = (name: string): void => {
    const value = number++ % 2 === 0 ? number : { number };
    session.set(name, value);
    visit.own.set(name, value);
    visit.replaced.add(name);
    visit.isDirty = hasId = true;
  };
  const remove = (name: string): void => {
    session.delete(name);
    if (!visit.isLoaded) lostSets.add(name);
    visit.own.set(name, DELETED);
    visit.replaced.add(name);
    visit.isDirty = true;
  };

  await think();
  for (const step of todo) {
    switch (step.do) {
      case 'get':
        await get(step.key);
        break;
      case 'set':
        set(step.key);
        break;
      case 'delete':
        remove(step.key);
        break;
      case 'change': {
        const value = await get(step.key);
        if (typeof value === 'object' && value !== null) {
          Object.assign(value, { changedBy: number++ });
          visit.own.set(step.key, value);
        }
        break;
      }
      case 'take flash':
        if ((await get('flash')) !== undefined) remove('flash');
        break;
      case 'rewrite all':
        for (const name of await names()) set(name);
        break;
      case 'delete all':
        for (const name of await names()) remove(name);
        break;
      case 'two parts':
        // Astro renders components concurrently: the second one reads while the first one still waits.
        await Promise.all([get('a'), think().then(() => get('b'))]);
        break;
      case 'think':
        await think();
        break;
      case 'regenerate':
        await read(() => session.regenerate());
        visit.isDirty = hasId = true;
        break;
      case 'destroy':
        session.destroy();
        visit.own.clear();
        visit.seen.clear();
        visit.isDirty = true;
        hasId = false;
        break;
    }
  }
  await astro.persist(session);
  for (const name of lostSets) visit.own.set(name, DELETED);
  // Astro does not save a session that was only changed in place.
  if (!visit.isDirty) visit.own.clear();
}

/** The contents of a session after the changes of a request. */
function apply(contents: Values, { own, seen }: Visit): Values {
  const after = new Map(contents);
  for (const [name, value] of own) {
    if (value !== DELETED) after.set(name, value);
    // A request deletes only keys that it has read.
    else if (seen.has(name)) after.delete(name);
  }
  return after;
}

/** The expected contents of the session: all changes applied in the order in which they reached the backend. */
function expectedOf({ before, log }: Outcome): Values {
  return log.reduce((contents, { visit }) => apply(contents, visit), before);
}

/**
 * The expected contents of each id when requests regenerate or destroy the session. Several results may be allowed; null means that the
 * session must be missing.
 *
 * - The first request to remove the old id takes its contents. Later writes to the old id are dropped.
 * - A request that removes it later keeps only its own changes, because the session may have been signed out.
 * - The first request also keeps only its own changes when a request in the same process signs out before it has saved the session. Another
 *   regeneration does not count as a sign-out.
 * - A sign-out between the first request's last check and its write may count or not.
 */
function expectedAfterLeaving({ id, before, log, visits }: Outcome): Map<string, (Values | null)[]> {
  const expected = new Map<string, (Values | null)[]>();
  const taken = new Map<Visit, Values>();
  let contents: Values | null = before;
  for (const { visit, what, id: about, isRejected } of log) {
    if (about === id) {
      expect(isRejected).toBe(contents === null);
      if (what === 'write') contents &&= apply(contents, visit);
      else {
        if (contents) taken.set(visit, contents);
        contents = null;
      }
    } else if (what === 'remove') {
      expected.set(about, [null]);
    } else {
      const old = taken.get(visit);
      const signOuts = visits.filter((other) => other !== visit && other.process === visit.process && isSignOut(other));
      const isSignedOut = signOuts.some((other) => other.removedAt < visit.savedAt);
      const mayBeSignedOut = signOuts.some((other) => other.removedAt < visit.writtenAt);
      const [all, own] = [old && apply(old, visit), apply(new Map(), visit)];
      if (!all || !keepsAMark(visit) || isSignedOut) expected.set(about, [own]);
      else expected.set(about, mayBeSignedOut ? [all, own] : [all]);
    }
  }
  return expected.set(id, [contents]);
}

/** Whether a request counts as a sign-out: it removed the shared session, and did not visibly save it under a new id. */
function isSignOut(visit: Visit): boolean {
  return visit.removedAt >= 0 && (visit.savedAt < visit.removedAt || !keepsAMark(visit));
}

/** Whether an entry with a mark is left. Without one, the driver cannot know which session a regenerated session came from. */
function keepsAMark({ seen, replaced }: Visit): boolean {
  return [...seen].some((name) => !replaced.has(name));
}

function byKey(contents: Values | null): Record<string, unknown> | null {
  return contents && Object.fromEntries([...contents].sort(([first], [second]) => first.localeCompare(second)));
}

async function expectNothingLost(outcome: Outcome): Promise<void> {
  expect(byKey(await outcome.look(outcome.id))).toEqual(byKey(expectedOf(outcome)));
  const written = new Set(outcome.log.map(({ visit }) => visit));
  for (const visit of outcome.visits) {
    if (apply(new Map(), visit).size > 0) expect(written).toContain(visit);
  }
}

describe.each(astros)('concurrent requests in Astro $version', { timeout: 60_000 }, (astro) => {
  it('keep all sets, deletes and in-place changes', async () => {
    await fc.assert(
      fc.asyncProperty(race, fc.scheduler(), async (program, scheduler) => {
        await expectNothingLost(await run(astro, program, scheduler, { makeDriver: coatcheck }));
      }),
      { numRuns: runs(500) },
    );
  });

  it('without identity, keep all changes as long as each leaves at least one key unchanged', async () => {
    await fc.assert(
      fc.asyncProperty(requests(6, small, quiet), fc.scheduler(), async (program, scheduler) => {
        await expectNothingLost(await run(astro, program, scheduler, { makeDriver: coatcheck, identified: false }));
      }),
      { numRuns: runs(300) },
    );
  });

  it('lose nothing when the session is regenerated, and do not restore a destroyed session', async () => {
    await fc.assert(
      fc.asyncProperty(raceOfLeaving, fc.scheduler(), async (program, scheduler) => {
        const outcome = await run(astro, program, scheduler, { makeDriver: coatcheck });
        for (const [id, allowed] of expectedAfterLeaving(outcome)) {
          expect(allowed.map(byKey)).toContainEqual(byKey(await outcome.look(id)));
        }
      }),
      { numRuns: runs(1000) },
    );
  });

  it('lose many changes on a plain driver, which shows that these tests detect lost updates', async () => {
    const count = 200;
    let lost = 0;
    await fc.assert(
      fc.asyncProperty(race, fc.scheduler(), async (program, scheduler) => {
        const outcome = await run(astro, program, scheduler, { makeDriver: plain });
        const now = JSON.stringify(byKey(await outcome.look(outcome.id)));
        if (now !== JSON.stringify(byKey(expectedOf(outcome)))) lost++;
      }),
      { numRuns: count },
    );
    expect(lost).toBeGreaterThan(count / 4);
  });
});
