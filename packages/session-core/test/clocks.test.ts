import fc from 'fast-check';
import { createSessions } from '@coatcheck/session-core';
import { applyChange, defineDriver, endOf, recordKey } from '@coatcheck/session-core/driver';
import type { SessionStore, StoredRecord, SessionDriver } from '@coatcheck/session-core/driver';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { astrosInScope, createBrowser as createAstroBrowser } from './support/astro-site.ts';
import { createBrowser } from './support/backend.ts';
import { runs } from './support/values.ts';

// The process has two clocks, neither of which shows the time that really passes: one can be set, and the other stands still while the
// process is suspended. The backend has its own, and forgets tombstones by it.

let time = 0;
let set = 0;
let suspended = 0;

function startClocks(): void {
  [time, set, suspended] = [1_000_000, Date.UTC(2030, 0, 1), 0];
  vi.spyOn(Date, 'now').mockImplementation(() => time + set);
  vi.spyOn(performance, 'now').mockImplementation(() => time - suspended);
}

afterEach(() => void vi.restoreAllMocks());

/** A backend in another process. */
function createRemote(): { driver: SessionDriver; evict(id: string): void; holds(id: string): boolean } {
  const records = new Map<string, StoredRecord>();
  const tombstones = new Map<string, number>();
  const load = (key: string): StoredRecord | null => {
    const record = records.get(key);
    return record && endOf(record) > time ? record : null;
  };
  const hasTombstone = (key: string): boolean => (tombstones.get(key) ?? 0) > time;
  const store: SessionStore = {
    atomic: true,
    read: async (key) => load(key)?.fields ?? null,
    async patch(key, change) {
      if (hasTombstone(key)) return 'destroyed';
      const changed = applyChange(load(key), change, time);
      if (typeof changed === 'string') return changed;
      records.set(key, changed);
      return 'applied';
    },
    async destroy(key, tombstoneMs) {
      const held = hasTombstone(key) ? 'destroyed' : (load(key)?.fields ?? null);
      records.delete(key);
      tombstones.set(key, time + tombstoneMs);
      return held;
    },
  };
  return {
    driver: defineDriver({ name: `clocks-${crypto.randomUUID()}`, options: {}, open: () => store })(),
    evict: (id) => void records.delete(recordKey(id)),
    holds: (id) => load(recordKey(id)) !== null,
  };
}

type Step =
  | { do: 'pass' | 'set clock' | 'suspend'; ms: number }
  | { do: 'open' | 'sign out' | 'evict' }
  | { do: 'save' | 'move'; page: number };

function stepsWith(...clocks: fc.Arbitrary<Step>[]): fc.Arbitrary<Step[]> {
  const step = fc.oneof(
    { weight: 3, arbitrary: fc.record({ do: fc.constant('open' as const) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('sign out', 'evict') }) },
    { weight: 4, arbitrary: fc.record({ do: fc.constantFrom('save', 'move'), page: fc.nat(5) }) },
    ...clocks.map((arbitrary) => ({ weight: 4, arbitrary })),
  );
  return fc.array(step, { minLength: 4, maxLength: 24 });
}

const AWHILE = [1000, 30_000, 54_999, 59_000, 61_000, 3_600_000];
const pass = fc.record({ do: fc.constant('pass' as const), ms: fc.constantFrom(...AWHILE) });
const suspend = fc.record({ do: fc.constant('suspend' as const), ms: fc.constantFrom(...AWHILE) });
const setForward = fc.record({ do: fc.constant('set clock' as const), ms: fc.constantFrom(...AWHILE) });
const setBack = setForward.map((step) => ({ ...step, ms: -step.ms }));

// A process that is suspended while its clock is set back as well has nothing left to tell the time by.
const steps = fc.oneof(stepsWith(pass, setForward, setBack), stepsWith(pass, setForward, suspend));

const open: Step = { do: 'open' };
const signOut: Step = { do: 'sign out' };
const LONG = 70_000;

const examples: [Step[]][] = (['save', 'move'] as const).flatMap((what): [Step[]][] => [
  [[open, signOut, { do: 'pass', ms: LONG }, { do: 'set clock', ms: -LONG }, { do: what, page: 0 }]],
  [[open, signOut, { do: 'set clock', ms: LONG }, { do: what, page: 0 }]],
  [[open, signOut, { do: 'suspend', ms: LONG }, { do: what, page: 0 }]],
  [[open, { do: 'suspend', ms: LONG }, signOut, { do: 'pass', ms: LONG }, { do: what, page: 0 }]],
]);

/** One request under way, which has read the session. */
interface Page {
  save(): Promise<unknown>;
  /** Goes on under a new id, and ends; resolves to what is under that id then. */
  move(): Promise<unknown>;
}

/** A site and one of its users. */
interface Site {
  id: string;
  /** Undefined when there is no session to be read. */
  open(): Promise<Page | undefined>;
  signOut(): Promise<unknown>;
}

/** Whether the session was signed out, and what was seen of it afterwards. */
async function run(program: Step[], remote: ReturnType<typeof createRemote>, site: Site): Promise<void> {
  const pages: Page[] = [];
  let isOut = false;
  for (const step of program) {
    if (step.do === 'pass') time += step.ms;
    else if (step.do === 'set clock') set += step.ms;
    else if (step.do === 'suspend') {
      time += step.ms;
      suspended += step.ms;
    } else if (step.do === 'evict') remote.evict(site.id);
    else if (step.do === 'open') {
      const page = await site.open();
      if (page) pages.push(page);
    } else if (step.do === 'sign out') {
      await site.signOut();
      isOut = true;
    } else if (step.do === 'save' || step.do === 'move') {
      const [page] = pages.splice(step.page, 1);
      if (step.do === 'save') await page?.save();
      else {
        const seen = await page?.move();
        // After a move the old id is out as well.
        if (isOut && seen) expect(seen).not.toContain('secret');
        isOut ||= page !== undefined;
      }
    }
    if (isOut) expect(remote.holds(site.id), `signed out, and back after ${JSON.stringify(step)}`).toBe(false);
  }
}

describe('whatever the clocks do, a session that was removed stays removed', { timeout: 60_000 }, () => {
  it.each(astrosInScope)('in Astro $version', async (astro) => {
    startClocks();
    await fc.assert(
      fc.asyncProperty(steps, async (program) => {
        const remote = createRemote();
        const user = createAstroBrowser(astro, remote.driver);
        await user.visit((session) => session.set('secret', 1));
        const id = user.cookie!;
        await run(program, remote, {
          id,
          async open() {
            const browser = createAstroBrowser(astro, remote.driver, {}, id);
            const page = browser.open();
            if (!(await page.run((session) => session.has('secret')))) return undefined;
            return {
              async save() {
                page.run((session) => session.set('seen', 1));
                await page.end();
              },
              async move() {
                await page.run((session) => session.regenerate());
                await page.end();
                return createAstroBrowser(astro, remote.driver, {}, browser.cookie).visit(async (session) => [
                  ...(await session.keys()),
                ]);
              },
            };
          },
          signOut: () => createAstroBrowser(astro, remote.driver, {}, id).visit((session) => session.destroy()),
        });
      }),
      { numRuns: runs(3000), examples },
    );
  });

  it('in Session', async () => {
    startClocks();
    await fc.assert(
      fc.asyncProperty(steps, async (program) => {
        const remote = createRemote();
        const sessions = createSessions({ driver: remote.driver });
        const user = createBrowser(sessions);
        await user.visit((session) => session.set('secret', 1));
        const { cookie } = user;
        await run(program, remote, {
          id: user.id,
          async open() {
            const browser = createBrowser(sessions, cookie);
            const session = browser.open();
            if (!(await session.has('secret'))) return undefined;
            return {
              async save() {
                session.set('seen', 1);
                await browser.take(session);
              },
              async move() {
                await session.regenerate();
                await browser.take(session);
                return browser.open().keys();
              },
            };
          },
          signOut: () => createBrowser(sessions, cookie).visit((session) => session.destroy()),
        });
      }),
      { numRuns: runs(3000), examples },
    );
  });
});
