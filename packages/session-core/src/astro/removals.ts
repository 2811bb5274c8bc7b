import type { SessionFields } from '../codec/field-codec.ts';
import { TOMBSTONE_MS } from '../contract/tombstone.ts';
import type { FinalContents } from '../engine/record.ts';
import { type Moment, msSince, thisMoment } from '../platform/clock.ts';

import type { OwnRemoval, RequestMemory } from './request.ts';

/** One removal of a session, as far as other requests need to know of it. */
export interface Removal {
  /** Resolves when the removal is over, to whether it was carried out. */
  readonly over: Promise<boolean>;
  /**
   * Whether the request that removed the session went on with it under another id (it regenerated it), or was answered without that (it
   * signed out). Where requests have no identity, nobody can tell: false.
   */
  readonly moved: Promise<boolean>;
}

interface Kept extends Removal {
  at: Moment;
  /** What the session held, for a request without identity that goes on with it. */
  content?: Promise<FinalContents> | undefined;
  characters: number;
}

/** How many characters of removed sessions are kept for requests without identity. */
const MOST_CHARACTERS = 2 ** 23;

/** How many sessions with removals are remembered; beyond that, the oldest are forgotten. */
const MOST_SESSIONS = 2 ** 16;

/** The removals that a driver has begun, by id, for as long as their tombstones last. */
export interface Removals {
  add(id: string, held: Promise<FinalContents>, request: RequestMemory | undefined): OwnRemoval;
  of(id: string): readonly Removal[];
  /**
   * What a session held that was removed without identity, for the one who goes on with it; afterwards it is not kept. Where it was removed
   * twice, one of the two may have been a sign-out, so nobody takes it along.
   */
  take(id: string): Promise<FinalContents> | undefined;
}

export function createRemovals(): Removals {
  const all = new Map<string, Kept[]>();
  /** Those whose content is kept, the oldest first. */
  const withContent = new Set<Kept>();
  let characters = 0;

  const dropContent = (removal: Kept): void => {
    if (withContent.delete(removal)) characters -= removal.characters;
    removal.content = undefined;
  };
  const forget = (id: string, removal: Kept): void => {
    dropContent(removal);
    const others = (all.get(id) ?? []).filter((other) => other !== removal);
    if (others.length > 0) all.set(id, others);
    else all.delete(id);
  };
  // A function of its own, so that the timer holds nothing else of the removal.
  const forgetLater = (id: string, removal: Kept): void => {
    // Not all runtimes let a timer outlive the request: there the next removal does it.
    const timer: unknown = setTimeout(() => forget(id, removal), TOMBSTONE_MS);
    (timer as { unref?(): void }).unref?.();
  };
  const forgetOld = (): void => {
    for (const [id, removals] of all) {
      if (all.size < MOST_SESSIONS && msSince(removals[0]!.at) < TOMBSTONE_MS) break;
      forget(id, removals[0]!);
    }
  };
  const keepContent = async (removal: Kept, held: Promise<FinalContents>): Promise<void> => {
    const fields = await held.catch(() => null);
    if (!removal.content || fields === null || fields === 'destroyed') return;
    removal.characters = lengthOf(fields);
    characters += removal.characters;
    withContent.add(removal);
    for (const oldest of withContent) {
      if (characters <= MOST_CHARACTERS) break;
      dropContent(oldest);
    }
  };

  return {
    add(id, held, request) {
      const { promise: moved, resolve } = Promise.withResolvers<boolean>();
      const over = held.then(
        () => true,
        () => false,
      );
      const removal: Kept = { over, moved, at: thisMoment(), characters: 0 };
      forgetOld();
      all.set(id, [...(all.get(id) ?? []), removal]);
      const own: OwnRemoval = { held, moved, onMoved: () => resolve(true) };
      if (request) {
        request.whenAnswered(() => {
          resolve(false);
          // Before Node 24 a promise keeps the memory of the request that made it, and with it this one.
          own.held = Promise.resolve('destroyed');
        });
      } else {
        resolve(false);
        removal.content = held;
        void keepContent(removal, held);
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
      const held = first.content ?? first.over.then(() => null);
      dropContent(first);
      return held;
    },
  };
}

function lengthOf(fields: SessionFields): number {
  let length = 0;
  for (const [key, field] of fields) length += key.length + field.length;
  return length;
}
