import { endOf, type StoredRecord } from '../codec/packed-record.ts';
import type { Lifetime, StoreCall } from '../contract/store.ts';

/** A backend that stores only whole values. Keys and values are well-formed strings without NUL. */
export interface ValueBackend {
  /** Whether `set` compares `version` atomically, across processes. */
  readonly compareAndSet: boolean;
  /**
   * Resolves to the value and its version, or to null when there is none. It may return a value that has expired. For a stored value that
   * is incomplete or corrupt, resolve to `unreadable` with an error that says why; its version may be undefined. Must not answer from a
   * cache. Reject only when the backend failed.
   */
  get(key: string, call: StoreCall): Promise<StoredValue | null>;
  /**
   * Stores a value for at least `lifetimeMs` milliseconds, and resolves to true. With `compareAndSet`, only if the stored value still has
   * `version`; null means that there must be no value, and an expired value counts as none. Otherwise it stores nothing and resolves to
   * false.
   */
  set(key: string, value: string, call: StoreCall & { lifetimeMs: Lifetime; version: unknown }): Promise<boolean>;
  /** Removes a value. Removing a missing value is not an error. */
  remove(key: string, call: StoreCall): Promise<void>;
  /** See `SessionStore.sweep`. */
  sweep?(limit: number, call: StoreCall): Promise<number>;
  /** See `SessionStore.close`. */
  close?(): Promise<void>;
}

/** A value that `ValueBackend.get` found, or the reason why it cannot be read. */
export type StoredValue =
  | { readonly value: string; readonly unreadable?: never; readonly version?: unknown }
  | { readonly value?: never; readonly unreadable: Error; readonly version?: unknown };

/** Converts records to values. */
export interface RecordCodec {
  /** Encodes a record. */
  pack(record: StoredRecord): string;
  /**
   * Decodes a record.
   *
   * @throws an error when the value is not a record.
   */
  unpack(value: string): StoredRecord;
}

/** The state of one key. */
export interface Slot {
  /** The live record, or null. */
  record: StoredRecord | null;
  /** When the tombstone ends, in epoch milliseconds; 0 without a tombstone. */
  tombstoneUntil: number;
  /** Why the stored value cannot be read. Such a key can only be destroyed. */
  unreadable?: Error;
}

/** Stores the state of keys in a backend. */
export interface Layout {
  /** Resolves to the live record, or to null. */
  read(key: string, call: StoreCall): Promise<StoredRecord | null>;
  /** Loads the state of a key before a change. If there is a record, a tombstone may be missed; `save` detects it. */
  load(key: string, call: StoreCall): Promise<{ slot: Slot; version: unknown }>;
  /** Stores the state of a key. `conflict`: the stored version is no longer `version`. `destroyed`: `save` found a tombstone. */
  save(
    key: string,
    slot: Slot,
    version: unknown,
    clock: number,
    call: StoreCall,
  ): Promise<'saved' | 'conflict' | 'destroyed'>;
}

/** A stored tombstone starts with this, followed by its end. */
export const TOMBSTONE = 'retired ';

/** The layout with compare-and-set: a tombstone replaces the record under the same key. */
export function inOneValue(backend: ValueBackend, codec: RecordCodec): Layout {
  const load = async (key: string, call: StoreCall): Promise<{ slot: Slot; version: unknown }> => {
    const stored = await backend.get(key, call);
    return { slot: readSlot(stored, codec), version: stored ? stored.version : null };
  };
  return {
    load,
    read: async (key, call) => recordIn((await load(key, call)).slot),
    async save(key, { record, tombstoneUntil }, version, clock, call) {
      const value = record ? codec.pack(record) : TOMBSTONE + tombstoneUntil;
      const lifetimeMs = lifetimeUntil(record ? endOf(record) : tombstoneUntil, clock);
      // A corrupt value without a version cannot be replaced by compare-and-set. Removing it first is safe, because nobody else can change
      // it.
      if (version === undefined) await backend.remove(key, call);
      const done = await backend.set(key, value, { ...withSignal(call), lifetimeMs, version: version ?? null });
      return done ? 'saved' : 'conflict';
    },
  };
}

/** The slot that a stored value contains. */
export function readSlot(stored: StoredValue | null, codec: RecordCodec): Slot {
  if (!stored) return { record: null, tombstoneUntil: 0 };
  const { value, unreadable } = stored;
  if (unreadable) return { record: null, tombstoneUntil: 0, unreadable };
  if (value.startsWith(TOMBSTONE)) {
    const until = value.slice(TOMBSTONE.length);
    if (/\d|Infinity/.test(until) && !Number.isNaN(Number(until)))
      return { record: null, tombstoneUntil: Number(until) };
    return { record: null, tombstoneUntil: 0, unreadable: new Error('The stored tombstone is corrupt.') };
  }
  try {
    const record = codec.unpack(value);
    return { record: endOf(record) > Date.now() ? record : null, tombstoneUntil: 0 };
  } catch (error) {
    return { record: null, tombstoneUntil: 0, unreadable: error as Error };
  }
}

/** The record of a slot. Throws the reason when the stored value cannot be read. */
export function recordIn(slot: Slot): StoredRecord | null {
  assertReadable(slot);
  return slot.record;
}

/** Throws the reason when the stored value cannot be read. */
export function assertReadable({ unreadable }: Slot): void {
  if (unreadable) throw unreadable;
}

/** How long a value must be stored. */
export function lifetimeUntil(end: number, clock: number): Lifetime {
  return end === Infinity ? 'never' : Math.max(end - clock, 0);
}

/** A call without the options of a read. */
export function withSignal(call: StoreCall): StoreCall {
  return { signal: call.signal };
}
