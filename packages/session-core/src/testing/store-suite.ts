import { explained, fail, isTrue, same, type It } from './assert.ts';
import type { Change, Fields, Lifetime, SessionStore, StoreCall } from '../contract/store.ts';

import { toBase64url } from '../platform/base64url.ts';

interface StoreSuiteOptions {
  it: It;
  /**
   * Creates a store on the backend under test. It is called twice for each test, as in two processes. It can return the same store each
   * time if the backend is for a single process.
   */
  createStore(): SessionStore | Promise<SessionStore>;
  /**
   * How long after its expiry a record or a tombstone may still exist, in milliseconds. None may expire early. The suite derives from this
   * how long it waits, and the timeout that it passes to `it`.
   *
   * @default 250
   */
  slackMs?: number;
  /**
   * Makes the backend unreachable, and resolves to a function that makes it reachable again. The suite then checks that a failure is an
   * `unavailable` error and never null.
   *
   * @default failures of the backend are not tested
   */
  outage?(): Promise<() => unknown>;
}

/**
 * How the suite checks lifetimes of months without waiting. One of the two is required.
 *
 * - `passTime` advances a fake clock, in milliseconds. The store and its backend must use this clock, which otherwise stands still.
 * - `timeLeft` asks a backend with its own clock how long the record or the tombstone of a key still lives, in milliseconds. Null means
 *   that there is neither. The suite then waits for records that live for a millisecond.
 */
type Time =
  | { passTime(ms: number): unknown; timeLeft?: undefined }
  | { timeLeft(key: string): Promise<Lifetime | null>; passTime?: undefined };

/** The store under test, the test runner, and how to check lifetimes. */
export type StoreSuite = StoreSuiteOptions & Time;

/** What a test works with: two stores, and helpers for time. */
export interface Subject {
  store: SessionStore;
  /** The store of another process. If the store is not atomic across processes, it is the same store. */
  other: SessionStore;
  key: string;
  /** Lets time pass until `holds` resolves to true. Fails with `message` if it never does. */
  eventually(holds: () => Promise<boolean>, message: string): Promise<void>;
  /** Creates a record with the field `old`, and waits until it has expired by its expiry or by its idle limit. */
  expired(key?: string, by?: Limit): Promise<void>;
  /** Asserts how long the record lives that was written or touched after `since`. It must be the last use of the key in a test. */
  livesFor(lifetime: Lifetime, since: number): Promise<void>;
  /** Asserts how long the key that was destroyed after `since` refuses changes. It must be the last use of the key in a test. */
  refusesFor(ms: number, since: number): Promise<void>;
  /** The current time, for `since`. */
  now(): number;
  /** Lets so much time pass that a sweep must remove expired records. False with a real clock, because that would take too long. */
  passSweepGrace(): Promise<boolean>;
  newKey(): string;
  /** Asserts with `timeLeft` when the record or tombstone of a key expires, in epoch milliseconds. Undefined: there is neither. */
  endsAt(key: string, end: number | undefined, sinceMs: number): Promise<void>;
  /** Asserts that a key still refuses changes after `ms` milliseconds. */
  refusesAfter(key: string, ms: number): Promise<void>;
}

/** The limit at which a record expires: its expiry, or its idle limit. */
export type Limit = 'expiry' | 'idle';
export const LIMITS: Limit[] = ['expiry', 'idle'];

export interface StoreTests {
  slackMs: number;
  passTime?: ((ms: number) => unknown) | undefined;
  test(rule: string, whatToDo: string, run: (subject: Subject) => Promise<void>): void;
}

export const MINUTE: number = 60_000;
export const HOUR: number = 60 * MINUTE;
export const DAY: number = 24 * HOUR;

/** How far the clocks of two processes on one machine may appear to differ. */
const TWO_CLOCKS_MS = 20;

/** How often a test polls for an expiry. The polls take up to ten times `slackMs`. */
const POLLS = 100;

export function storeTests(suite: StoreSuite): StoreTests {
  const { it, createStore, passTime, timeLeft, slackMs = 250 } = suite;
  if (!passTime && !timeLeft)
    throw new TypeError('testStore() needs `passTime` or `timeLeft`, because it cannot wait for lifetimes of months.');

  const subjectOn = (store: SessionStore, other: SessionStore, ownKey: string): Subject => {
    const eventually = async (holds: () => Promise<boolean>, message: string): Promise<void> => {
      for (let poll = 0; poll < POLLS; poll++) {
        if (await holds()) return;
        await (passTime ?? wait)(Math.ceil(slackMs / 10));
      }
      fail(message);
    };

    /** The backend may have started counting up to `sinceMs` later than the test. */
    const endsAt: Subject['endsAt'] = async (key, end, sinceMs) => {
      const askedAt = Date.now();
      const left = await timeLeft!(key);
      const answeredAt = Date.now();
      const expected = end === undefined ? null : end === Infinity ? 'never' : end - answeredAt;
      if (typeof expected !== 'number') return same(left, expected, 'the backend says');
      // On a busy machine the time may be over already.
      if (left === null && expected <= 0) return;
      if (typeof left !== 'number') return same(left, expected, 'the backend says');
      isTrue(
        left >= expected - TWO_CLOCKS_MS,
        `expected it to expire in ${expected} ms, but the backend expires it in ${left} ms`,
      );
      isTrue(
        left <= expected + (answeredAt - askedAt) + sinceMs + slackMs,
        `expected it to expire in ${expected} ms, but the backend keeps it for ${left} ms`,
      );
    };

    const expiresAfter = (lifetime: Lifetime, since: number): Promise<void> =>
      endsAt(ownKey, lifetime === 'never' ? Infinity : since + lifetime, Date.now() - since);

    return {
      store,
      other,
      key: ownKey,
      newKey,
      eventually,
      now: () => Date.now(),

      async expired(key = ownKey, by = 'expiry') {
        const now = Date.now();
        const soon = { set: new Map([['old', `${now + 1}:1`]]), lifetimeMs: 1, defaultTtlMs: 1, now };
        const idle = { set: new Map([['old', `${now + HOUR}:1`]]), idleMs: 1, now };
        await store.patch(key, change(by === 'expiry' ? soon : idle), call());
        await eventually(
          async () => (await store.read(key, call())) === null,
          'the record still exists long after its expiry',
        );
      },

      async livesFor(lifetime, since) {
        if (!passTime) return expiresAfter(lifetime, since);
        await passTime(lifetime === 'never' ? 10_000 * DAY : lifetime - 1);
        isTrue(
          (await store.read(ownKey, call())) !== null,
          `the record expired before its lifetime of ${lifetime} ms was over`,
        );
        if (lifetime === 'never') return;
        await passTime(slackMs + 2);
        same(await store.read(ownKey, call()), null, `the record must expire after ${lifetime} ms`);
      },

      async refusesFor(ms, since) {
        const attempt = () => store.patch(ownKey, change({ set: new Map([['late', ':1']]) }), call());
        if (!passTime) {
          await expiresAfter(ms, since);
          return same(await attempt(), 'destroyed');
        }
        await passTime(ms - 1);
        same(await attempt(), 'destroyed', `shortly before the ${ms} ms are over`);
        await passTime(slackMs + 2);
        same(await attempt(), 'applied', `after the ${ms} ms are over`);
      },

      endsAt,

      async refusesAfter(key, ms) {
        await passTime?.(ms);
        const left = passTime ? 'never' : await timeLeft(key);
        isTrue(
          left === 'never' || (left ?? 0) >= ms,
          `the tombstone must live for more than ${ms} ms, but expires in ${left} ms`,
        );
        same(await store.patch(key, change({ set: new Map([['late', ':1']]) }), call()), 'destroyed');
      },

      async passSweepGrace() {
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
      it(rule, () => explained(rule, whatToDo, once), MINUTE + POLLS * slackMs);
    },
  };
}

/** A new key in the form that core uses. */
function newKey(): string {
  return `conformance:${toBase64url(crypto.getRandomValues(new Uint8Array(32)))}`;
}

/** The argument of a call that is not aborted. */
export function call(): StoreCall {
  return { signal: AbortSignal.timeout(MINUTE) };
}

export function fields(entries: Record<string, string>): Fields {
  return new Map(Object.entries(entries));
}

/** A change with a lifetime of one hour, unless `part` says otherwise. */
export function change(part: Partial<Change>): Change {
  return { set: new Map(), unset: [], lifetimeMs: HOUR, defaultTtlMs: HOUR, now: Date.now(), ...part };
}

/** A change after which fields without an expiry never expire, unless `part` says otherwise. */
export function openEnded(part: Partial<Change>): Change {
  const { defaultTtlMs: _defaultTtlMs, ...rest } = change({ lifetimeMs: 'never', ...part });
  return rest;
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
