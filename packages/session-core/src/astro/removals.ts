import type { SessionFields } from '../codec/field-codec.ts';
import { TOMBSTONE_MS } from '../contract/tombstone.ts';
import type { FinalContents } from '../engine/record.ts';
import { type Moment, msSince, thisMoment } from '../platform/clock.ts';

import type { OwnRemoval, RequestMemory } from './request.ts';

/** One removal of a session, as other requests see it. */
export interface Removal {
  /** Resolves when the removal has settled: true if it succeeded, false if it failed. Never rejects. */
  readonly succeeded: Promise<boolean>;
  /**
   * Resolves to whether the removal was part of a regeneration. True: the request saved the session under a new id. False: the request was
   * answered without that, so it was a sign-out. For requests without identity, it resolves to false, because the two look the same.
   */
  readonly regenerated: Promise<boolean>;
}

/** A removal with what the driver remembers about it. */
interface TrackedRemoval extends Removal {
  startedAt: Moment;
  /** The last contents of the session. Only for removals without identity, because their requests cannot remember the contents. */
  contents?: Promise<FinalContents> | undefined;
  /** The size of `contents`; 0 until they are known. */
  characters: number;
}

/** The total size of the contents that are kept for requests without identity. Beyond that, the oldest are dropped. */
const MAX_CHARACTERS = 2 ** 23;

/** The number of sessions whose removals are remembered. Beyond that, the oldest are forgotten. */
const MAX_SESSIONS = 2 ** 16;

/** The removals that a driver has started, by session id. They are remembered at most as long as their tombstones last. */
export interface Removals {
  /** Adds a removal. `request` is undefined for a request without identity. */
  add(id: string, contents: Promise<FinalContents>, request: RequestMemory | undefined): OwnRemoval;
  /** All removals of a session that are remembered. */
  of(id: string): readonly Removal[];
  /**
   * Returns the last contents of a session that a request without identity removed, and forgets them. Undefined when there was no removal.
   * After more than one removal, it resolves to 'destroyed', because one of them may have been a sign-out.
   */
  take(id: string): Promise<FinalContents> | undefined;
}

/** Creates the memory of a driver's removals. */
export function createRemovals(): Removals {
  const all = new Map<string, TrackedRemoval[]>();
  /** The removals whose contents are kept, the oldest first. */
  const withContents = new Set<TrackedRemoval>();
  let characters = 0;

  const dropContents = (removal: TrackedRemoval): void => {
    if (withContents.delete(removal)) characters -= removal.characters;
    removal.contents = undefined;
  };
  const forget = (id: string, removal: TrackedRemoval): void => {
    dropContents(removal);
    const others = (all.get(id) ?? []).filter((other) => other !== removal);
    if (others.length > 0) all.set(id, others);
    else all.delete(id);
  };
  // A separate function, so that the timer's closure keeps nothing else in memory.
  const forgetLater = (id: string, removal: TrackedRemoval): void => {
    // In some runtimes, timers end with the request. There, `forgetOld` does this at the next removal.
    const timer: unknown = setTimeout(() => forget(id, removal), TOMBSTONE_MS);
    (timer as { unref?(): void }).unref?.();
  };
  const forgetOld = (): void => {
    for (const [id, removals] of all) {
      if (all.size < MAX_SESSIONS && msSince(removals[0]!.startedAt) < TOMBSTONE_MS) break;
      forget(id, removals[0]!);
    }
  };
  const keepContents = async (removal: TrackedRemoval, contents: Promise<FinalContents>): Promise<void> => {
    const fields = await contents.catch(() => null);
    if (!removal.contents || fields === null || fields === 'destroyed') return;
    removal.characters = lengthOf(fields);
    characters += removal.characters;
    withContents.add(removal);
    for (const oldest of withContents) {
      if (characters <= MAX_CHARACTERS) break;
      dropContents(oldest);
    }
  };

  return {
    add(id, contents, request) {
      const { promise: regenerated, resolve } = Promise.withResolvers<boolean>();
      const succeeded = contents.then(
        () => true,
        () => false,
      );
      const removal: TrackedRemoval = { succeeded, regenerated, startedAt: thisMoment(), characters: 0 };
      forgetOld();
      all.set(id, [...(all.get(id) ?? []), removal]);
      const own: OwnRemoval = { contents, regenerated, markRegenerated: () => resolve(true) };
      if (request) {
        request.whenAnswered(() => {
          resolve(false);
          // Drop the contents. Before Node 24, a promise keeps the async context of its request in memory, and with it this object.
          own.contents = Promise.resolve('destroyed');
        });
      } else {
        resolve(false);
        removal.contents = contents;
        void keepContents(removal, contents);
        forgetLater(id, removal);
      }
      return own;
    },

    of: (id) => all.get(id) ?? [],

    take(id) {
      const removals = all.get(id) ?? [];
      const [first] = removals;
      if (!first) return undefined;
      if (removals.length > 1) return Promise.resolve('destroyed');
      const contents = first.contents ?? first.succeeded.then(() => null);
      dropContents(first);
      return contents;
    },
  };
}

function lengthOf(fields: SessionFields): number {
  let length = 0;
  for (const [key, field] of fields) length += key.length + field.length;
  return length;
}
