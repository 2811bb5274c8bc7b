import { endOf, type StoredRecord } from '../codec/packed-record.ts';
import type { Lifetime, StoreCall } from '../contract/store.ts';
import { TOMBSTONE_MS } from '../contract/tombstone.ts';
import { createTombstones } from './tombstones.ts';

/** A backend that knows only whole values. Keys and values are well-formed text without NUL. */
export interface ValueBackend {
  /** Whether `set` honours `version`, across processes. */
  readonly compareAndSet: boolean;
  /**
   * The value and the version that it has, or null when there is none. May return a value whose lifetime is over. What is there and is
   * no whole value is `unreadable`, with an error that says why; then a version may be missing. Rejects only when the backend failed.
   */
  get(key: string, call: StoreCall): Promise<StoredValue | null>;
  /**
   * Stores a value that lives for `lifetimeMs`, or longer where the backend cannot do better. With compare-and-set: only if the stored
   * value still has `version`, where null stands for no value; resolves to false, and stores nothing, when it has not.
   */
  set(key: string, value: string, call: StoreCall & { lifetimeMs: Lifetime; version: unknown }): Promise<boolean>;
  /** Removes a value. A missing one is no error. */
  remove(key: string, call: StoreCall): Promise<void>;
  sweep?(limit: number, call: StoreCall): Promise<number>;
  close?(): Promise<void>;
}

export type StoredValue =
  | { readonly value: string; readonly unreadable?: never; readonly version?: unknown }
  | { readonly value?: never; readonly unreadable: Error; readonly version?: unknown };

/** How records become values. */
export interface RecordCodec {
  pack(record: StoredRecord): string;
  /** Throws when the value is no record. */
  unpack(value: string): StoredRecord;
}

/** What is known of one key. */
export interface Slot {
  record: StoredRecord | null;
  tombstoneUntil: number;
  /** Why what is there is no record. Then it can only be removed. */
  unreadable?: Error;
}

/** How a slot lies in the backend. */
export interface Layout {
  /** The live record. */
  read(key: string, call: StoreCall): Promise<StoredRecord | null>;
  /** What a change is made to. A tombstone may be overlooked where there is a record: `save` finds it. */
  load(key: string, call: StoreCall): Promise<{ slot: Slot; version: unknown }>;
  save(
    key: string,
    slot: Slot,
    version: unknown,
    clock: number,
    call: StoreCall,
  ): Promise<'saved' | 'conflict' | 'destroyed'>;
}

const TOMBSTONE = 'retired ';

/** With compare-and-set: the tombstone takes the record's place. */
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
      // What is corrupt so much that it has no version is changed by nobody else.
      if (version === undefined) await backend.remove(key, call);
      const done = await backend.set(key, value, { ...withSignal(call), lifetimeMs, version: version ?? null });
      return done ? 'saved' : 'conflict';
    },
  };
}

/** Where a store without compare-and-set keeps tombstones. */
interface TombstonePlace {
  /** Until when a key is destroyed, in a slot without a record. */
  get(key: string, call: StoreCall): Promise<Slot>;
  set(key: string, until: number, clock: number, call: StoreCall): Promise<void>;
}

export function tombstonesIn(backend: ValueBackend): TombstonePlace {
  return {
    get: async (key, call) => readSlot(await backend.get(tombstoneKey(key), call), noRecords),
    async set(key, until, clock, call) {
      const lifetimeMs = lifetimeUntil(until, clock);
      await backend.set(tombstoneKey(key), TOMBSTONE + until, { ...withSignal(call), lifetimeMs, version: undefined });
    },
  };
}

export function tombstonesInMemory(): TombstonePlace {
  const tombstones = createTombstones();
  return {
    get: async (key) => ({ record: null, tombstoneUntil: tombstones.has(key) ? Infinity : 0 }),
    set: async (key) => tombstones.add(key, TOMBSTONE_MS),
  };
}

/**
 * Without compare-and-set: the tombstone has a place of its own, which late writers cannot overwrite. Reading looks at both, because a writer
 * that could not see the tombstone yet may have put the record back; writing looks for it when the record is written.
 *
 * @param isOurs whether nobody else uses the keys, so that what is under one can be removed without knowing what it is.
 */
export function inTwoValues(
  backend: ValueBackend,
  codec: RecordCodec,
  tombstones: TombstonePlace,
  isOurs: boolean = true,
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
        if (isOurs || !unreadable) await backend.remove(key, call);
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

/** Where a store that is not atomic keeps the tombstone of a key. */
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

/** How what is stored in the place of a tombstone is read. */
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

export function assertReadable({ unreadable }: Slot): void {
  if (unreadable) throw unreadable;
}

function lifetimeUntil(end: number, clock: number): Lifetime {
  return end === Infinity ? 'never' : Math.max(end - clock, 0);
}

function withSignal(call: StoreCall): StoreCall {
  return { signal: call.signal };
}
