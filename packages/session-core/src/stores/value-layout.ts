import { endOf, type StoredRecord } from '../codec/packed-record.ts';
import type { Lifetime, StoreCall } from '../contract/store.ts';
import { TOMBSTONE_MS } from '../contract/tombstone.ts';
import { createTombstones } from './tombstones.ts';

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

const TOMBSTONE = 'retired ';

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

/** Storage for tombstones, for the layout without compare-and-set. */
interface TombstoneStorage {
  /** Resolves to the tombstone of a key, as a slot without a record. */
  get(key: string, call: StoreCall): Promise<Slot>;
  /** Stores a tombstone that ends at `until`, in epoch milliseconds. */
  set(key: string, until: number, clock: number, call: StoreCall): Promise<void>;
}

/** Keeps tombstones in the backend, each under a key of its own. */
export function tombstonesIn(backend: ValueBackend): TombstoneStorage {
  return {
    get: async (key, call) => readSlot(await backend.get(tombstoneKey(key), call), noRecords),
    async set(key, until, clock, call) {
      const lifetimeMs = lifetimeUntil(until, clock);
      await backend.set(tombstoneKey(key), TOMBSTONE + until, { ...withSignal(call), lifetimeMs, version: undefined });
    },
  };
}

/** Keeps tombstones in the memory of this process. */
export function tombstonesInMemory(): TombstoneStorage {
  const tombstones = createTombstones();
  return {
    get: async (key) => ({ record: null, tombstoneUntil: tombstones.has(key) ? Infinity : 0 }),
    set: async (key) => tombstones.add(key, TOMBSTONE_MS),
  };
}

/**
 * The layout without compare-and-set: a tombstone is stored separately, where late writers of the record cannot overwrite it. `read` loads
 * both, because a writer that did not see the tombstone may have restored the record. `save` looks for a tombstone after it has written the
 * record.
 *
 * @param ownsKeys whether only this store uses its keys. Then destroying a session may remove a value that cannot be read. Default: true.
 */
export function inTwoValues(
  backend: ValueBackend,
  codec: RecordCodec,
  tombstones: TombstoneStorage,
  ownsKeys: boolean = true,
): Layout {
  const slotOf = async (key: string, call: StoreCall): Promise<Slot> => readSlot(await backend.get(key, call), codec);
  const hasTombstone = (tombstone: Slot): boolean => {
    assertReadable(tombstone);
    return tombstone.tombstoneUntil > Date.now();
  };
  return {
    async read(key, call) {
      const [slot, tombstone] = await Promise.all([slotOf(key, call), tombstones.get(key, call)]);
      return hasTombstone(tombstone) ? null : recordIn(slot);
    },
    async load(key, call) {
      const slot = await slotOf(key, call);
      return { slot: slot.record ? slot : { ...slot, ...(await tombstones.get(key, call)) }, version: undefined };
    },
    async save(key, { record, tombstoneUntil, unreadable }, version, clock, call) {
      if (!record) {
        await tombstones.set(key, tombstoneUntil, clock, call);
        if (ownsKeys || !unreadable) await backend.remove(key, call);
        return 'saved';
      }
      await backend.set(key, codec.pack(record), {
        ...withSignal(call),
        lifetimeMs: lifetimeUntil(endOf(record), clock),
        version,
      });
      if (!hasTombstone(await tombstones.get(key, call))) return 'saved';
      await backend.remove(key, call);
      return 'destroyed';
    },
  };
}

/** The key of a tombstone in a store without compare-and-set. */
export function tombstoneKey(key: string): string {
  return `${key}.retired`;
}

function readSlot(stored: StoredValue | null, codec: RecordCodec): Slot {
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

/** The codec for a tombstone's key, where a record would be corrupt data. */
const noRecords: RecordCodec = {
  pack: () => '',
  unpack() {
    throw new Error('The stored tombstone is corrupt.');
  },
};

function recordIn(slot: Slot): StoredRecord | null {
  assertReadable(slot);
  return slot.record;
}

/** Throws the reason when the stored value cannot be read. */
export function assertReadable({ unreadable }: Slot): void {
  if (unreadable) throw unreadable;
}

function lifetimeUntil(end: number, clock: number): Lifetime {
  return end === Infinity ? 'never' : Math.max(end - clock, 0);
}

function withSignal(call: StoreCall): StoreCall {
  return { signal: call.signal };
}
