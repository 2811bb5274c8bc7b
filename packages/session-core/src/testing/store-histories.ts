import { fail, same } from './assert.ts';
import { call, DAY, HOUR, MINUTE, type StoreTests, type Subject } from './store-suite.ts';
import { endOf, type StoredRecord } from '../codec/packed-record.ts';
import type { Change, Fields, PatchResult, SessionStore } from '../contract/store.ts';

import { applyChange } from '../stores/apply-patch.ts';

const HISTORIES = 80;
const STEPS = 16;

/** Runs random sequences of calls, and compares each result with a model of the contract. Finds combinations that the other tests miss. */
export function testHistories({ test, passTime, slackMs }: StoreTests): void {
  for (const part of [1, 2, 3, 4]) {
    test(
      `random sequences of calls return what the contract says, part ${part} of 4`,
      'Compare your store with `applyChange`, which defines what a change does, and with the contract of `SessionStore`. The message lists the ' +
        'steps; the last one returned a wrong result.',
      async (subject) => {
        for (let seed = part; seed <= HISTORIES; seed += 4) await play(subject, randomOf(seed), { passTime, slackMs });
      },
    );
  }
}

/** One sequence of calls for one key. */
interface History {
  random: Random;
  store: SessionStore;
  key: string;
  model: Model;
  /** The names of the fields that its changes use. */
  names: string[];
  /** How far the clock of its writers is ahead, in milliseconds. */
  offset: number;
  /** Whether the clock is fake. With a real one, nothing may expire in the middle of a history. */
  isFake: boolean;
}

async function play(subject: Subject, random: Random, time: Pick<StoreTests, 'passTime' | 'slackMs'>): Promise<void> {
  const { store } = subject;
  const key = subject.newKey();
  const model = createModel();
  const names = Array.from({ length: 4 }, () => random.of(NAMES));
  const offset = random.of([0, 0, -2 * HOUR, 2 * HOUR]);
  const history: History = { random, store, key, model, names, offset, isFake: time.passTime !== undefined };
  const steps: string[] = [];
  // The backend starts counting a lifetime later than the model, by the duration of the call. An expiry may be checked several calls later,
  // so the slowest call counts.
  let slowestMs = 0;

  for (let step = 0; step < STEPS; step++) {
    const { what, onStore, onModel } = nextStep(history);
    steps.push(what);
    const before = Date.now();
    const expected = onModel();
    const actual = await onStore();
    slowestMs = Math.max(slowestMs, Date.now() - before);
    try {
      same(actual, expected);
      if (!time.passTime) await subject.endsAt(key, model.end(), slowestMs);
    } catch (error) {
      fail(`${(error as Error).message}\nSteps:\n  ${steps.join('\n  ')}`);
    }
    // A store that is not atomic may keep a tombstone for longer than requested.
    if (!store.atomic && what.startsWith('destroy')) return;
    if (time.passTime && random.chance(0.5)) {
      const ms = random.of([1, 1000, MINUTE, HOUR, DAY, 35 * DAY]);
      steps.push(`${ms} ms pass`);
      await time.passTime(ms);
    }
    // A backend may still return a record shortly after it has expired. Skip that time.
    while (time.passTime && model.endsBetween(Date.now() - time.slackMs - 2, Date.now() + 1))
      await time.passTime(time.slackMs + 4);
  }
}

interface Step {
  what: string;
  onModel(): unknown;
  onStore(): Promise<unknown>;
}

function nextStep(history: History): Step {
  const { random, store, key, model, isFake } = history;
  const kind = random.of(['patch', 'patch', 'patch', 'patch', 'read', 'touch', 'destroy'] as const);
  if (kind === 'touch' && store.atomic) {
    const extendIdleMs = random.of(isFake ? [1999, MINUTE, 2 * DAY, 40 * DAY] : [HOUR, 2 * DAY, 40 * DAY]);
    return {
      what: `touch for ${extendIdleMs} ms`,
      onModel: () => model.read(extendIdleMs),
      onStore: () => store.read(key, { ...call(), extendIdleMs }),
    };
  }
  if (kind === 'destroy' && random.chance(0.4)) {
    const ms = random.of(isFake ? [0, 1999, MINUTE, HOUR, 60 * DAY] : [HOUR, 60 * DAY]);
    return {
      what: `destroy for ${ms} ms`,
      onModel: () => model.destroy(ms),
      onStore: () => store.destroy(key, ms, call()),
    };
  }
  if (kind === 'patch') {
    const change = randomChange(history);
    return {
      what: `patch ${describe(change)}`,
      onModel: () => model.patch(change),
      onStore: () => store.patch(key, change, call()),
    };
  }
  return { what: 'read', onModel: () => model.read(), onStore: () => store.read(key, call()) };
}

const NAMES = [
  'a',
  'A',
  'a ',
  'ab',
  '__proto__',
  'constructor',
  'é',
  'e\u0301',
  '0',
  '00',
  '\\',
  '"',
  '%',
  'a.b',
  '$a',
  'id',
  'key',
  '漢',
];

function randomChange({ random, names, offset, isFake, model }: History): Change {
  const now = Date.now() + offset;
  const lifetimes = isFake ? [-HOUR, 0, 1, 1999, MINUTE, HOUR, 3 * DAY, 40 * DAY] : [HOUR, 3 * DAY, 40 * DAY];
  const value = (): string => {
    if (random.chance(0.4)) return `:${random.of(['1', '"x"', '"X"', ' 1 '])}`;
    if (random.chance(0.2)) return '-:1';
    // Some fields are expired already. They can be purged, and do not extend the life of the record.
    return `${now + random.of([...lifetimes, -MINUTE])}:1`;
  };
  const fields = (chance: number): Fields =>
    new Map(names.filter(() => random.chance(chance)).map((name) => [name, value()]));
  const some = (chance: number): string[] => names.filter(() => random.chance(chance));
  const current = model.fields();
  const expected = (name: string): string | null => {
    const held = current?.get(name) ?? null;
    return random.chance(0.8)
      ? held
      : random.of([null, ':1', held?.toUpperCase() ?? null, held?.toLowerCase() ?? null]);
  };
  const open = isFake ? [] : [':open'];
  const set = new Map([...fields(0.4), ...open.map((text) => ['kept', text] as const)]);
  return {
    set: random.chance(0.85) ? set : new Map(open.map((text) => ['kept', text])),
    unset: random.chance(0.4) ? some(0.4) : [],
    ...(random.chance(0.3) && { purge: some(0.5) }),
    ...(random.chance(0.3) && { ifAbsent: fields(0.5) }),
    ...(random.chance(0.4) && { expect: new Map(some(0.4).map((name) => [name, expected(name)])) }),
    ...(random.chance(0.3) && { [random.of(['mustExist', 'mustBeNew'])]: random.chance(0.8) }),
    lifetimeMs: random.of([...lifetimes, 'never' as const]),
    ...(random.chance(0.75) && { defaultTtlMs: random.of(lifetimes.filter((ms) => ms > 0)) }),
    ...(random.chance(0.4) && { idleMs: random.of(lifetimes.filter((ms) => ms > 0)) }),
    now,
  };
}

function describe(change: Change): string {
  const { now, ...parts } = change;
  const shown = JSON.stringify(parts, (_name, part: unknown) => (part instanceof Map ? [...part] : part));
  return `${shown} by a clock that is ${now - Date.now()} ms ahead`;
}

// -------------------------------------------------------------------------------------------------------------- the model

/** A model of one key that follows the contract. */
interface Model {
  read(extendIdleMs?: number): Fields | null;
  patch(change: Change): PatchResult;
  destroy(ms: number): Fields | 'destroyed' | null;
  fields(): Fields | undefined;
  /** When the live record or the tombstone expires, in epoch milliseconds; undefined if there is neither. */
  end(): number | undefined;
  /** Whether the record or the tombstone expires between two timestamps. */
  endsBetween(from: number, to: number): boolean;
}

function createModel(): Model {
  let record: StoredRecord | null = null;
  let tombstoneUntil = 0;
  const live = (): StoredRecord | null => (record && endOf(record) > Date.now() ? record : null);
  const hasTombstone = (): boolean => tombstoneUntil > Date.now();
  return {
    read(extendIdleMs) {
      const found = live();
      if (found && extendIdleMs !== undefined) record = { ...found, idleUntil: Date.now() + extendIdleMs };
      return found && found.fields;
    },
    patch(change) {
      if (hasTombstone()) return 'destroyed';
      const changed = applyChange(live(), change, Date.now());
      if (typeof changed === 'string') return changed;
      record = changed;
      return 'applied';
    },
    destroy(ms) {
      const held = hasTombstone() ? 'destroyed' : (live()?.fields ?? null);
      record = null;
      tombstoneUntil = Math.max(tombstoneUntil, Date.now() + ms);
      return held;
    },
    fields: () => live()?.fields,
    end: () => (hasTombstone() ? tombstoneUntil : live() ? endOf(live()!) : undefined),
    endsBetween: (from, to) =>
      [tombstoneUntil, record?.expires, record?.idleUntil].some((end) => end !== undefined && end >= from && end <= to),
  };
}

// -------------------------------------------------------------------------------------------------------------- chance

interface Random {
  chance(probability: number): boolean;
  of<Item>(items: readonly Item[]): Item;
}

/** Returns the same numbers for the same seed, so that a failed history can be repeated. https://github.com/cprosche/mulberry32 */
function randomOf(seed: number): Random {
  let state = seed * 0x9e3779b9;
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return { chance: (probability) => next() < probability, of: (items) => items[Math.floor(next() * items.length)]! };
}
