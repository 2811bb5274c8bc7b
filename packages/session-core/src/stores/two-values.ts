import { endOf } from '../codec/packed-record.ts';
import type { StoreCall } from '../contract/store.ts';
import { TOMBSTONE_MS } from '../contract/tombstone.ts';
import { createTombstones } from './tombstones.ts';
import {
  assertReadable,
  type Layout,
  lifetimeUntil,
  readSlot,
  type RecordCodec,
  recordIn,
  type Slot,
  TOMBSTONE,
  type ValueBackend,
  withSignal,
} from './value-layout.ts';

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

/** The codec for a tombstone's key, where a record would be corrupt data. */
const noRecords: RecordCodec = {
  pack: () => '',
  unpack() {
    throw new Error('The stored tombstone is corrupt.');
  },
};
