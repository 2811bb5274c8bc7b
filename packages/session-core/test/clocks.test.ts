import fc from 'fast-check';
import { createSessions } from '@coatcheck/session-core';
import { applyChange, defineDriver, endOf, recordKey } from '@coatcheck/session-core/driver';
import type { SessionStore, StoredRecord, SessionDriver } from '@coatcheck/session-core/driver';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { astrosInScope, createBrowser as createAstroBrowser } from './support/astro-site.ts';
import { createBrowser } from './support/backend.ts';
import { runs } from './support/values.ts';

// The process has two clocks, and neither measures real time reliably: the system clock can be set, and the monotonic clock stops while the
// process is suspended. The backend has its own clock, by which its tombstones end.

let time = 0;
let set = 0;
let suspended = 0;

function startClocks(): void {
  [time, set, suspended] = [1_000_000, Date.UTC(2030, 0, 1), 0];
  vi.spyOn(Date, 'now').mockImplementation(() => time + set);
  vi.spyOn(performance, 'now').mockImplementation(() => time - suspended);
}

afterEach(() => void vi.restoreAllMocks());

/** A backend in another process, with its own clock. */
function createRemote(): {
  driver: SessionDriver;
  evict(id: string): Promise<void>;
  holds(id: string): Promise<boolean>;
} {
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
      const contents = hasTombstone(key) ? 'destroyed' : (load(key)?.fields ?? null);
      records.delete(key);
      tombstones.set(key, time + tombstoneMs);
      return contents;
    },
  };
  return {
    driver: defineDriver({ name: `clocks-${crypto.randomUUID()}`, options: {}, open: () => store })(),
    evict: async (id) => void records.delete(await recordKey(id)),
    holds: async (id) => load(await recordKey(id)) !== null,
  };
}

type Step =
  | { do: 'pass' | 'set clock' | 'suspend'; ms: number }
  | { do: 'open' | 'sign out' | 'evict' }
  | { do: 'save' | 'regenerate'; page: number };

function stepsWith(...clocks: fc.Arbitrary<Step>[]): fc.Arbitrary<Step[]> {
  const step = fc.oneof(
    { weight: 3, arbitrary: fc.record({ do: fc.constant('open' as const) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('sign out', 'evict') }) },
    { weight: 4, arbitrary: fc.record({ do: fc.constantFrom('save', 'regenerate'), page: fc.nat(5) }) },
    ...clocks.map((arbitrary) => ({ weight: 4, arbitrary })),
  );
  return fc.array(step, { minLength: 4, maxLength: 24 });
}

const AWHILE = [1000, 30_000, 54_999, 59_000, 61_000, 3_600_000];
const pass = fc.record({ do: fc.constant('pass' as const), ms: fc.constantFrom(...AWHILE) });
const suspend = fc.record({ do: fc.constant('suspend' as const), ms: fc.constantFrom(...AWHILE) });
const setForward = fc.record({ do: fc.constant('set clock' as const), ms: fc.constantFrom(...AWHILE) });
const setBack = setForward.map((step) => ({ ...step, ms: -step.ms }));

// Never both: a process that is suspended while its system clock is set back cannot measure time at all.
const steps = fc.oneof(stepsWith(pass, setForward, setBack), stepsWith(pass, setForward, suspend));

const open: Step = { do: 'open' };
const signOut: Step = { do: 'sign out' };
const LONG = 70_000;

const examples: [Step[]][] = (['save', 'regenerate'] as const).flatMap((what): [Step[]][] => [
  [[open, signOut, { do: 'pass', ms: LONG }, { do: 'set clock', ms: -LONG }, { do: what, page: 0 }]],
  [[open, signOut, { do: 'set clock', ms: LONG }, { do: what, page: 0 }]],
  [[open, signOut, { do: 'suspend', ms: LONG }, { do: what, page: 0 }]],
  [[open, { do: 'suspend', ms: LONG }, signOut, { do: 'pass', ms: LONG }, { do: what, page: 0 }]],
]);

/** A request that has read the session and is not finished. */
interface Page {
  save(): Promise<unknown>;
  /** Regenerates the session and finishes. Resolves to the keys under the new id. */
  regenerate(): Promise<unknown>;
}

/** A site and one of its users. */
interface Site {
  id: string;
  /** Starts a request and reads the session. Resolves to undefined when there is none. */
  open(): Promise<Page | undefined>;
  signOut(): Promise<unknown>;
}

/** Runs a program, and checks after each step that a session does not come back after a sign-out. */
async function run(program: Step[], remote: ReturnType<typeof createRemote>, site: Site): Promise<void> {
  const pages: Page[] = [];
  let isSignedOut = false;
  for (const step of program) {
    if (step.do === 'pass') time += step.ms;
    else if (step.do === 'set clock') set += step.ms;
    else if (step.do === 'suspend') {
      time += step.ms;
      suspended += step.ms;
    } else if (step.do === 'evict') await remote.evict(site.id);
    else if (step.do === 'open') {
      const page = await site.open();
      if (page) pages.push(page);
    } else if (step.do === 'sign out') {
      await site.signOut();
      isSignedOut = true;
    } else if (step.do === 'save' || step.do === 'regenerate') {
      const [page] = pages.splice(step.page, 1);
      if (step.do === 'save') await page?.save();
      else {
        const seen = await page?.regenerate();
        // Regenerating also destroys the old id.
        if (isSignedOut && seen) expect(seen).not.toContain('secret');
        isSignedOut ||= page !== undefined;
      }
    }
    if (isSignedOut)
      expect(await remote.holds(site.id), `restored after a sign-out by ${JSON.stringify(step)}`).toBe(false);
  }
}

describe('a destroyed session stays destroyed, whatever the clocks do', { timeout: 60_000 }, () => {
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
              async regenerate() {
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
              async regenerate() {
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
