import {
  applyChange,
  createError,
  endOf,
  type Lifetime,
  type SessionStore,
  type StoreCall,
  type StoredRecord,
} from '@coatcheck/session-core/driver';

/** The record or the tombstone that is stored under a key. */
export type Slot = StoredRecord & { tombstoneUntil?: number };

/** A backend that is used over a network: every statement takes one round trip, and is one step. */
export interface Shelf {
  slots: Map<string, Slot>;
  isDown: boolean;
  /** Waits for one round trip. The statement after it runs before anything else does. */
  trip(call: StoreCall): Promise<void>;
}

export function createShelf(): Shelf {
  const shelf: Shelf = {
    slots: new Map(),
    isDown: false,
    async trip({ signal }) {
      signal.throwIfAborted();
      for (let turn = 0; turn < 3; turn++) await Promise.resolve();
      if (shelf.isDown) throw createError('session-shelf', 'unavailable', 'The backend is down; nothing was sent.');
    },
  };
  return shelf;
}

export const hasTombstone = (slot: Slot | undefined): boolean => (slot?.tombstoneUntil ?? 0) > Date.now();

/** The live record under a key. */
export function liveIn(shelf: Shelf, key: string): StoredRecord | null {
  const slot = shelf.slots.get(key);
  return slot && slot.tombstoneUntil === undefined && endOf(slot) > Date.now() ? slot : null;
}

/** How long the record or tombstone of a key still lives, in milliseconds; null if there is neither. */
export function timeLeftOn(shelf: Shelf, key: string): Lifetime | null {
  const slot = shelf.slots.get(key);
  if (!slot) return null;
  const left = (slot.tombstoneUntil ?? endOf(slot)) - Date.now();
  return left === Infinity ? 'never' : left > 0 ? left : null;
}

/** A store that follows the contract. */
export function rightStore(shelf: Shelf, apply: typeof applyChange = applyChange): SessionStore {
  return {
    atomic: true,

    async read(key, call) {
      await shelf.trip(call);
      const record = liveIn(shelf, key);
      if (record && call.extendIdleMs !== undefined)
        shelf.slots.set(key, { ...record, idleUntil: Date.now() + call.extendIdleMs });
      return record && new Map(record.fields);
    },

    async patch(key, change, call) {
      await shelf.trip(call);
      if (hasTombstone(shelf.slots.get(key))) return 'destroyed';
      const changed = apply(liveIn(shelf, key), change, Date.now());
      if (typeof changed === 'string') return changed;
      shelf.slots.set(key, changed);
      return 'applied';
    },

    async destroy(key, tombstoneMs, call) {
      await shelf.trip(call);
      const slot = shelf.slots.get(key);
      const record = liveIn(shelf, key);
      shelf.slots.set(
        key,
        tombstone(Math.max(hasTombstone(slot) ? slot!.tombstoneUntil! : 0, Date.now() + tombstoneMs)),
      );
      return hasTombstone(slot) ? 'destroyed' : record && record.fields;
    },

    async sweep(limit, call) {
      await shelf.trip(call);
      const expired = [...shelf.slots]
        .filter(([, slot]) => (slot.tombstoneUntil ?? endOf(slot)) <= Date.now())
        .slice(0, limit);
      for (const [key] of expired) shelf.slots.delete(key);
      return expired.length;
    },
  };
}

export function tombstone(tombstoneUntil: number): Slot {
  return { fields: new Map(), expires: 0, idleUntil: 0, tombstoneUntil };
}
