import { valueStore, type SessionStore } from '@coatcheck/session-core/driver';
import { testStore } from '@coatcheck/session-core/testing';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createShelf, rightStore, timeLeftOn, type Shelf } from './support/right-store.ts';
import { rightBackend, wrongBackends, type ValueShelf } from './support/wrong-backends.ts';
import { wrongStores } from './support/wrong-stores.ts';

// Tests of the conformance suite itself: a right store passes, and each wrong store fails at the rule that it breaks.

type Tests = Map<string, () => Promise<void>>;

/** All tests of the suite on a new shelf, by their names, which are the rules. */
function suiteOn(clock: 'fake' | 'real', createStore: (shelf: Shelf) => SessionStore): Tests {
  const shelf = createShelf();
  const tests: Tests = new Map();
  testStore({
    it: (rule, test) => tests.set(rule, test),
    createStore: () => createStore(shelf),
    slackMs: 20,
    async outage() {
      shelf.isDown = true;
      return () => (shelf.isDown = false);
    },
    ...(clock === 'fake' ? { passTime } : { timeLeft: async (key) => timeLeftOn(shelf, key) }),
  });
  return tests;
}

const passTime = (ms: number): unknown => vi.advanceTimersByTime(ms);

function withFakeClock(): void {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['Date', 'performance'] }));
  afterEach(() => void vi.useRealTimers());
}

/** Runs the tests of the suite whose rule starts with `rule`. Returns the first error, if any. */
async function failureOf(tests: Tests, rule: string): Promise<unknown> {
  const found = [...tests.keys()].filter((name) => name.startsWith(rule));
  if (found.length === 0) throw new Error(`The suite has no rule that starts with: ${rule}`);
  for (const name of found) {
    try {
      await tests.get(name)!();
    } catch (error) {
      return error;
    }
  }
  return undefined;
}

const saysWhatToDo = (rule: string): unknown =>
  expect.objectContaining({
    message: expect.stringMatching(new RegExp(`\\nRule: ${escaped(rule)}.*\\nWhat to do: \\w`)),
  });

const escaped = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');

describe.each(['fake', 'real'] as const)('with a %s clock', (clock) => {
  if (clock === 'fake') withFakeClock();

  const rules = [...suiteOn(clock, rightStore)];
  it.each(rules)('passes a right store: %s', async (_rule, test) => {
    await expect(test()).resolves.toBeUndefined();
  });

  // Some mistakes of a sweep show only after a day.
  const stores = wrongStores.filter((store) => clock === 'fake' || !store.needsFakeClock);
  it.each(stores)('fails a store in which $name', async ({ breaks, wrong }) => {
    const tests = suiteOn(clock, (shelf) => {
      const right = rightStore(shelf);
      return { ...right, ...wrong(shelf, right) };
    });
    expect(await failureOf(tests, breaks)).toEqual(saysWhatToDo(breaks));
  });
});

describe('a backend of whole values', () => {
  withFakeClock();

  const suite = (wrong: (typeof wrongBackends)[number]['wrong'] = () => ({})): Tests => {
    const values: ValueShelf = { values: new Map(), versions: 0 };
    return suiteOn('fake', (shelf) => {
      const right = rightBackend(values, shelf);
      return valueStore({ ...right, ...wrong(values, right) });
    });
  };

  it.each([...suite()])('passes a right backend: %s', async (_rule, test) => {
    await expect(test()).resolves.toBeUndefined();
  });

  it.each(wrongBackends)('fails a backend in which $name', async ({ breaks, wrong }) => {
    expect(await failureOf(suite(wrong), breaks)).toEqual(saysWhatToDo(breaks));
  });

  it('fails with an error if `get` and `set` disagree about expiry, and does not retry endlessly', async () => {
    const { breaks, wrong } = wrongBackends.find(({ name }) => name.startsWith('`set` counts an expired value'))!;
    const message = expect.stringContaining('`set` keeps rejecting the version that `get` returns');
    expect(await failureOf(suite(wrong), breaks)).toEqual(expect.objectContaining({ message }));
  });
});

it('requires `passTime` or `timeLeft`, so that it need not wait for months', () => {
  const suite = { it: () => undefined, createStore: () => rightStore(createShelf()) };
  expect(() => testStore(suite as never)).toThrow('testStore() needs `passTime` or `timeLeft`');
});
