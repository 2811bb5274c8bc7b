import { explained, fail, isTrue, same, type It } from './assert.ts';
import type { Change, Fields, Lifetime, SessionStore, StoreCall } from '../contract/store.ts';

import { createSessionId, recordKey } from '../engine/session-id.ts';

interface StoreSuiteOptions {
  it: It;
  /**
   * Makes a store on the one backend under test. Called twice for each test, as two processes would. Where one process is all that the
   * backend is for, it may return the same store each time.
   */
  createStore(): SessionStore | Promise<SessionStore>;
  /**
   * For how long what has expired may still be there, in milliseconds: the backend's own coarseness. Nothing may go sooner than it was to.
   * The suite derives from it how long it waits, and the time-out that it hands to `it`.
   *
   * @default 250
   */
  slackMs?: number;
  /**
   * Makes the backend unreachable, and resolves to what makes it reachable again. With it the suite checks that a failure is an
   * `unavailable` error and never a null.
   */
  outage?(): Promise<() => unknown>;
}

/**
 * How the suite checks lifetimes of months without waiting for them. One of the two is needed.
 *
 * - `passTime` moves a fake clock that the store and its backend go by, and that stands still otherwise.
 * - `timeLeft` asks a backend that has its own clock how long what it keeps under a key still lives there, record or tombstone, in
 *   milliseconds. Null when there is nothing. Records of a millisecond's life are then really waited for.
 */
type Time =
  | { passTime(ms: number): unknown; timeLeft?: undefined }
  | { timeLeft(key: string): Promise<Lifetime | null>; passTime?: undefined };

export type StoreSuite = StoreSuiteOptions & Time;

/** What a test works with. */
export interface Subject {
  store: SessionStore;
  /** As in another process. The same store where changes are not atomic across processes: then they are so within one. */
  other: SessionStore;
  key: string;
  /** Lets time pass until something holds; fails with `message` when it never does. */
  eventually(holds: () => Promise<boolean>, message: string): Promise<void>;
  /** Makes a record with the field `old`, and waits until it has expired: at its hard deadline, or at its idle limit. */
  expired(key?: string, by?: Limit): Promise<void>;
  /** Asserts how long the record lives that was written or touched since `since`. The last that a test does with its key. */
  livesFor(lifetime: Lifetime, since: number): Promise<void>;
  /** Asserts how long the key refuses changes that was destroyed since `since`. The last that a test does with its key. */
  refusesFor(ms: number, since: number): Promise<void>;
  /** The time now, for `since`. */
  now(): number;
  /** Lets so much time pass that a sweep may take what has expired. False where that would have to be waited for. */
  leaveBehind(): Promise<boolean>;
  newKey(): string;
  /** Asserts by what the backend says when what lies under a key ends; undefined: there is nothing. */
  endsAt(key: string, end: number | undefined, sinceMs: number): Promise<void>;
  /** Asserts that a key still refuses changes when so much time has passed. */
  refusesAfter(key: string, ms: number): Promise<void>;
}

/** What ends a record. */
export type Limit = 'deadline' | 'idle';
export const LIMITS: Limit[] = ['deadline', 'idle'];

export interface StoreTests {
  slackMs: number;
  passTime?: ((ms: number) => unknown) | undefined;
  test(rule: string, whatToDo: string, run: (subject: Subject) => Promise<void>): void;
}

export const MINUTE: number = 60_000;
export const HOUR: number = 60 * MINUTE;
export const DAY: number = 24 * HOUR;

/** By what the clocks of two processes on one machine may seem to differ. */
const TWO_CLOCKS_MS = 20;

/** How often a test looks whether something has gone, in ten times the time that it may take. */
const LOOKS = 100;

export function storeTests(suite: StoreSuite): StoreTests {
  const { it, createStore, passTime, timeLeft, slackMs = 250 } = suite;
  if (!passTime && !timeLeft)
    throw new TypeError('testStore() needs `passTime` or `timeLeft`: it does not wait for lifetimes of months.');

  const subjectOn = (store: SessionStore, other: SessionStore, ownKey: string): Subject => {
    const eventually = async (holds: () => Promise<boolean>, message: string): Promise<void> => {
      for (let look = 0; look < LOOKS; look++) {
        if (await holds()) return;
        await (passTime ?? wait)(Math.ceil(slackMs / 10));
      }
      fail(message);
    };

    /** The backend may have been told of the end up to `sinceMs` after it was reckoned. */
    const endsAt: Subject['endsAt'] = async (key, end, sinceMs) => {
      const askedAt = Date.now();
      const left = await timeLeft!(key);
      const answeredAt = Date.now();
      const expected = end === undefined ? null : end === Infinity ? 'never' : end - answeredAt;
      if (typeof expected !== 'number') return same(left, expected, 'the backend says');
      // On a busy machine it may have ended meanwhile, as it was to.
      if (left === null && expected <= 0) return;
      if (typeof left !== 'number') return same(left, expected, 'the backend says');
      isTrue(
        left >= expected - TWO_CLOCKS_MS,
        `it was to end in ${expected} ms, and the backend lets it go in ${left} ms`,
      );
      isTrue(
        left <= expected + (answeredAt - askedAt) + sinceMs + slackMs,
        `it was to end in ${expected} ms, and the backend keeps it for ${left} ms`,
      );
    };

    const isLeft = (lifetime: Lifetime, since: number): Promise<void> =>
      endsAt(ownKey, lifetime === 'never' ? Infinity : since + lifetime, Date.now() - since);

    return {
      store,
      other,
      key: ownKey,
      newKey,
      eventually,
      now: () => Date.now(),

      async expired(key = ownKey, by = 'deadline') {
        const now = Date.now();
        const soon = { set: new Map([['old', `${now + 1}:1`]]), lifetimeMs: 1, defaultTtlMs: 1, now };
        const idle = { set: new Map([['old', `${now + HOUR}:1`]]), idleMs: 1, now };
        await store.patch(key, change(by === 'deadline' ? soon : idle), call());
        await eventually(
          async () => (await store.read(key, call())) === null,
          'the record is still there long after its lifetime',
        );
      },

      async livesFor(lifetime, since) {
        if (!passTime) return isLeft(lifetime, since);
        await passTime(lifetime === 'never' ? 10_000 * DAY : lifetime - 1);
        isTrue(
          (await store.read(ownKey, call())) !== null,
          `the record was to live for ${lifetime} ms, and went before`,
        );
        if (lifetime === 'never') return;
        await passTime(slackMs + 2);
        same(await store.read(ownKey, call()), null, `the record was to go after ${lifetime} ms`);
      },

      async refusesFor(ms, since) {
        const attempt = () => store.patch(ownKey, change({ set: new Map([['late', ':1']]) }), call());
        if (!passTime) {
          await isLeft(ms, since);
          return same(await attempt(), 'destroyed');
        }
        await passTime(ms - 1);
        same(await attempt(), 'destroyed', `shortly before the ${ms} ms end`);
        await passTime(slackMs + 2);
        same(await attempt(), 'applied', `when the ${ms} ms are over`);
      },

      endsAt,

      async refusesAfter(key, ms) {
        await passTime?.(ms);
        const left = passTime ? 'never' : await timeLeft(key);
        isTrue(
          left === 'never' || (left ?? 0) >= ms,
          `the tombstone is to live longer than ${ms} ms, and ends in ${left} ms`,
        );
        same(await store.patch(key, change({ set: new Map([['late', ':1']]) }), call()), 'destroyed');
      },

      async leaveBehind() {
        await passTime?.(DAY);
        return passTime !== undefined;
      },
    };
  };

  return {
    slackMs,
    passTime,
    test(rule, whatToDo, run) {
      const once = async (): Promise<void> => {
        const stores = [await createStore(), await createStore()] as const;
        const [store, other] = stores[0].atomic ? stores : [stores[0], stores[0]];
        try {
          await run(subjectOn(store, other, newKey()));
        } finally {
          for (const each of new Set(stores)) await each.close?.();
        }
      };
      it(rule, () => explained(rule, whatToDo, once), MINUTE + LOOKS * slackMs);
    },
  };
}

/** A key such as core makes. */
function newKey(): string {
  return recordKey(createSessionId(), 'conformance:');
}

export function call(): StoreCall {
  return { signal: AbortSignal.timeout(MINUTE) };
}

export function fields(entries: Record<string, string>): Fields {
  return new Map(Object.entries(entries));
}

/** A change that lets the record live for an hour, unless it says otherwise. */
export function change(part: Partial<Change>): Change {
  return { set: new Map(), unset: [], lifetimeMs: HOUR, defaultTtlMs: HOUR, now: Date.now(), ...part };
}

/** The same with nothing that keeps fields without an expiry from living for ever. */
export function openEnded(part: Partial<Change>): Change {
  const { defaultTtlMs: _capMs, ...rest } = change({ lifetimeMs: 'never', ...part });
  return rest;
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
