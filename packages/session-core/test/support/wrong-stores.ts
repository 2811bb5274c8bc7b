import {
  applyChange,
  endOf,
  expiryOf,
  isCounted,
  type Change,
  type Fields,
  type SessionStore,
  type StoreCall,
  type StoredRecord,
} from '@coatcheck/session-core/driver';
import { hasTombstone, liveIn, rightStore, tombstone, type Shelf } from './right-store.ts';

type Patch = SessionStore['patch'];

interface WrongStore {
  /** What is wrong with it; completes "a store in which". */
  name: string;
  /** The start of the name of the rule that it breaks. */
  breaks: string;
  /** Whether only a suite with a fake clock finds it, because a day must pass. */
  needsFakeClock?: boolean;
  /** The methods that differ from those of a right store on the same shelf. */
  wrong(shelf: Shelf, right: SessionStore): Partial<SessionStore>;
}

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

// ------------------------------------------------------------------------------------------------------ ways to be wrong

/** Edits every change before it is applied. */
const changing =
  (edit: (change: Change) => Change): WrongStore['wrong'] =>
  (_shelf, right) => ({ patch: (key, change, call) => right.patch(key, edit(change), call) });

/** Applies every change in another way. */
const applying =
  (apply: typeof applyChange): WrongStore['wrong'] =>
  (shelf) => ({ patch: rightStore(shelf, apply).patch });

/** Edits the record after a change was applied. */
const afterwards =
  (edit: (record: StoredRecord, change: Change) => void): WrongStore['wrong'] =>
  (shelf, right) => ({
    async patch(key, change, call) {
      const result = await right.patch(key, change, call);
      if (result === 'applied') edit(shelf.slots.get(key)!, change);
      return result;
    },
  });

/** Applies a part of a change although the change was refused. */
const evenRefused =
  (part: (change: Change) => Partial<Change>): WrongStore['wrong'] =>
  (shelf, right) => ({
    async patch(key, change, call) {
      const result = await right.patch(key, change, call);
      const record = liveIn(shelf, key);
      if (result !== 'conflict' || !record) return result;
      const nothing = { set: new Map(), unset: [], lifetimeMs: HOUR, defaultTtlMs: HOUR, now: change.now };
      const changed = applyChange(record, { ...nothing, ...part(change) }, Date.now());
      if (typeof changed === 'object') shelf.slots.set(key, changed);
      return result;
    },
  });

/** Moves the expiry of every record. */
const ending = (edit: (leftMs: number) => number): WrongStore['wrong'] =>
  afterwards((record) => {
    if (record.expires !== Infinity) record.expires = Date.now() + edit(record.expires - Date.now());
  });

/** Edits the names of fields. */
const naming = (edit: (name: string) => string): WrongStore['wrong'] =>
  changing((change) => {
    const fields = (all: ReadonlyMap<string, string>): Fields =>
      new Map([...all].map(([name, value]) => [edit(name), value]));
    return {
      ...change,
      set: fields(change.set),
      unset: change.unset.map(edit),
      ...(change.expect && { expect: new Map([...change.expect].map(([name, value]) => [edit(name), value])) }),
    };
  });

/** Checks a condition in one round trip, and applies the change in another. */
const checkingFirst =
  (
    check: (record: StoredRecord | null, change: Change) => 'conflict' | undefined,
    without: Partial<Change>,
  ): WrongStore['wrong'] =>
  (shelf, right) => ({
    async patch(key, change, call) {
      await shelf.trip(call);
      const refused = hasTombstone(shelf.slots.get(key)) ? undefined : check(liveIn(shelf, key), change);
      return refused ?? right.patch(key, { ...change, ...without }, call);
    },
  });

/** Touches a record in another way. */
const touching =
  (
    touch: (shelf: Shelf, key: string, call: StoreCall & { extendIdleMs: number }) => Promise<Fields | null>,
  ): WrongStore['wrong'] =>
  (shelf, right) => ({
    read: (key, call) =>
      call.extendIdleMs === undefined
        ? right.read(key, call)
        : touch(shelf, key, call as StoreCall & { extendIdleMs: number }),
  });

const holds = (record: StoredRecord | null, change: Change): boolean =>
  [...(change.expect ?? [])].every(([name, value]) => (record?.fields.get(name) ?? null) === value);

/** The record that is stored under a key, even if it has expired: what a statement finds that does not check the expiry. */
const storedIn = (shelf: Shelf, key: string): StoredRecord | null => {
  const slot = shelf.slots.get(key);
  return slot && slot.tombstoneUntil === undefined ? slot : null;
};

/** Applies a change to an expired record. `edit` returns the record to which the change is applied. */
const patchingExpired =
  (edit: (record: StoredRecord | null, change: Change) => StoredRecord | null): WrongStore['wrong'] =>
  (shelf, right) => ({
    async patch(key, change, call) {
      await shelf.trip(call);
      const record = storedIn(shelf, key);
      const isLive = record !== null && endOf(record) > Date.now();
      if (!record || isLive) return right.patch(key, change, call);
      const changed = applyChange(edit(record, change), change, Date.now());
      if (typeof changed === 'string') return changed;
      shelf.slots.set(key, changed);
      return 'applied';
    },
  });

// ------------------------------------------------------------------------------------------------------------ wrong stores

const fieldsAndNames: WrongStore[] = [
  {
    name: 'a missing record reads as an empty one',
    breaks: 'a key that was never written',
    wrong: (_shelf, right) => ({ read: async (key, call) => (await right.read(key, call)) ?? new Map() }),
  },
  {
    name: 'fields are stored in a plain object',
    breaks: 'fields come back byte for byte',
    wrong: changing((change) => {
      const object: Record<string, string> = {};
      for (const [name, value] of change.set) object[name] = value;
      return { ...change, set: new Map(Object.entries(object)) };
    }),
  },
  {
    name: 'spaces at the end of a value are lost',
    breaks: 'fields come back byte for byte',
    wrong: changing((change) => ({
      ...change,
      set: new Map([...change.set].map(([name, value]) => [name, value.trimEnd()])),
    })),
  },
  {
    name: 'a value is cut at 64 KiB',
    breaks: 'a value of 100,000',
    wrong: changing((change) => ({
      ...change,
      set: new Map([...change.set].map(([name, value]) => [name, value.slice(0, 2 ** 16)])),
    })),
  },
  {
    name: 'a change has at most 999 parameters',
    breaks: 'one change can write 1,000 fields',
    wrong: changing((change) => ({ ...change, set: new Map([...change.set].slice(0, 999)) })),
  },
  { name: 'names are cut at 255 characters', breaks: 'names that differ', wrong: naming((name) => name.slice(0, 255)) },
  {
    name: 'names are cut at 2,000 characters',
    breaks: 'names that differ',
    wrong: naming((name) => name.slice(0, 2000)),
  },
  { name: 'names are case-folded', breaks: 'names that differ', wrong: naming((name) => name.toLowerCase()) },
  { name: 'names are normalised', breaks: 'names that differ', wrong: naming((name) => name.normalize('NFC')) },
  {
    name: 'names are normalised for compatibility',
    breaks: 'names that differ',
    wrong: naming((name) => name.normalize('NFKC')),
  },
  { name: 'names are trimmed', breaks: 'names that differ', wrong: naming((name) => name.trim()) },
  { name: 'names are trimmed at the end', breaks: 'names that differ', wrong: naming((name) => name.trimEnd()) },
  {
    name: 'keys are case-folded',
    breaks: 'keys that differ only in the case',
    wrong: (_shelf, right) => ({
      read: (key, call) => right.read(key.toLowerCase(), call),
      patch: (key, change, call) => right.patch(key.toLowerCase(), change, call),
      destroy: (key, ms, call) => right.destroy(key.toLowerCase(), ms, call),
    }),
  },
  {
    name: 'a change replaces the record',
    breaks: 'a change of some fields keeps the others',
    wrong: applying((record, change, clock) => {
      const changed = applyChange(record, change, clock);
      return typeof changed === 'string' ? changed : { ...changed, fields: new Map(change.set) };
    }),
  },
  {
    name: 'a record without fields is removed',
    breaks: 'a record without fields is a record',
    wrong: (shelf, right) => ({
      async patch(key, change, call) {
        const result = await right.patch(key, change, call);
        if (storedIn(shelf, key)?.fields.size === 0) shelf.slots.delete(key);
        return result;
      },
    }),
  },
  {
    name: 'readers get the Map that is stored',
    breaks: 'changing a returned or a passed Map',
    wrong: (shelf) => ({
      async read(key, call) {
        await shelf.trip(call);
        return liveIn(shelf, key)?.fields ?? null;
      },
    }),
  },
];

const changes: WrongStore[] = [
  {
    name: '`mustExist` is ignored',
    breaks: '`mustExist` refuses',
    wrong: changing((change) => ({ ...change, mustExist: false })),
  },
  {
    name: '`mustBeNew` is ignored',
    breaks: '`mustBeNew` refuses',
    wrong: changing((change) => ({ ...change, mustBeNew: false })),
  },
  {
    name: 'only the first field of `expect` is compared',
    breaks: '`expect` refuses a change unless',
    wrong: changing((change) =>
      change.expect ? { ...change, expect: new Map([...change.expect].slice(0, 1)) } : change,
    ),
  },
  {
    name: '`expect` ignores null',
    breaks: '`expect` refuses a change unless',
    wrong: changing((change) =>
      change.expect ? { ...change, expect: new Map([...change.expect].filter(([, value]) => value !== null)) } : change,
    ),
  },
  {
    name: '`expect` is always a conflict if there is no record',
    breaks: '`expect` treats a missing record like',
    wrong: (shelf, right) => ({
      async patch(key, change, call) {
        if (change.expect && !storedIn(shelf, key) && !hasTombstone(shelf.slots.get(key))) return 'conflict';
        return right.patch(key, change, call);
      },
    }),
  },
  {
    name: '`unset` is applied despite a conflict',
    breaks: 'a change that `expect` refuses',
    wrong: evenRefused(({ unset }) => ({ unset })),
  },
  {
    name: '`ifAbsent` is applied despite a conflict',
    breaks: 'a change that `expect` refuses',
    wrong: evenRefused(({ ifAbsent }) => (ifAbsent ? { ifAbsent } : {})),
  },
  {
    name: '`purge` is applied despite a conflict',
    breaks: 'a change that `expect` refuses',
    wrong: evenRefused(({ purge }) => (purge ? { purge } : {})),
  },
  {
    name: '`set` is applied despite a conflict with `mustBeNew`',
    breaks: 'a change that `mustBeNew` refuses',
    wrong: evenRefused(({ set, mustBeNew }) => (mustBeNew ? { set } : {})),
  },
  {
    name: 'a conflict changes the lifetime',
    breaks: 'a change that `expect` refuses',
    wrong: evenRefused(({ lifetimeMs, defaultTtlMs }) => ({ lifetimeMs, ...(defaultTtlMs && { defaultTtlMs }) })),
  },
  {
    name: 'a conflict sets the idle limit',
    breaks: 'a change that `mustBeNew` refuses',
    wrong: evenRefused(({ idleMs }) => (idleMs ? { idleMs } : {})),
  },
  {
    name: '`ifAbsent` is checked before `unset`',
    breaks: 'the order is',
    wrong: applying((record, change, clock) => {
      const ifAbsent = new Map([...(change.ifAbsent ?? [])].filter(([name]) => !record?.fields.has(name)));
      return applyChange(record, { ...change, ifAbsent }, clock);
    }),
  },
  {
    name: '`ifAbsent` is checked before `purge`',
    breaks: 'the order is',
    wrong: applying((record, change, clock) => {
      const ifAbsent = new Map(
        [...(change.ifAbsent ?? [])].filter(([name]) => !(record?.fields.has(name) && change.purge?.includes(name))),
      );
      return applyChange(record, { ...change, ifAbsent }, clock);
    }),
  },
  {
    name: '`unset` is applied after `set`',
    breaks: 'the order is',
    wrong: afterwards((record, change) => {
      for (const name of change.unset) record.fields.delete(name);
    }),
  },
  {
    name: '`ifAbsent` is applied after `set`, and overwrites it',
    breaks: 'the order is',
    wrong: afterwards((record, { ifAbsent, set }) => {
      for (const [name, value] of ifAbsent ?? []) if (set.has(name)) record.fields.set(name, value);
    }),
  },
  {
    name: '`ifAbsent` overwrites existing fields',
    breaks: 'the order is',
    wrong: changing((change) => ({ ...change, set: new Map([...(change.ifAbsent ?? []), ...change.set]) })),
  },
  {
    name: '`ifAbsent` requires a record',
    breaks: '`ifAbsent` creates a record',
    wrong: applying((record, change, clock) => {
      const { ifAbsent, ...others } = change;
      return applyChange(record, { ...others, ...(record && ifAbsent && { ifAbsent }) }, clock);
    }),
  },
  {
    name: '`purge` removes every field that it names',
    breaks: '`purge` removes expired fields',
    wrong: changing((change) => ({ ...change, unset: [...change.unset, ...(change.purge ?? [])] })),
  },
  {
    name: '`purge` removes all expired fields',
    breaks: '`purge` removes expired fields',
    wrong: applying((record, change, clock) =>
      applyChange(record, { ...change, ...(change.purge && { purge: [...(record?.fields.keys() ?? [])] }) }, clock),
    ),
  },
  {
    name: '`purge` is ignored',
    breaks: '`purge` removes expired fields',
    wrong: changing((change) => ({ ...change, purge: [] })),
  },
  {
    name: "`purge` uses the store's clock",
    breaks: '`purge` uses the clock of the writer',
    wrong: applying((record, change, clock) => {
      const unset = (change.purge ?? []).filter(
        (name) => (expiryOf(record?.fields.get(name) ?? '') ?? Infinity) < clock,
      );
      return applyChange(record, { ...change, unset: [...change.unset, ...unset], purge: [] }, clock);
    }),
  },
];

const lifetimes: WrongStore[] = [
  {
    name: 'lifetimes have 32 bits',
    breaks: `a record lives exactly as long as requested: ${60 * DAY}`,
    wrong: ending((ms) => ms | 0),
  },
  {
    name: 'lifetimes are limited to 32 bits',
    breaks: `a record lives exactly as long as requested: ${60 * DAY}`,
    wrong: ending((ms) => Math.min(ms, 2 ** 31 - 1)),
  },
  {
    name: 'lifetimes are limited to a day',
    breaks: `a record lives exactly as long as requested: ${36 * HOUR}`,
    wrong: ending((ms) => Math.min(ms, DAY)),
  },
  {
    name: 'lifetimes are limited to 400 days',
    breaks: `a record lives exactly as long as requested: ${1100 * DAY}`,
    wrong: ending((ms) => Math.min(ms, 400 * DAY)),
  },
  {
    name: 'lifetimes are limited to a minute',
    breaks: 'a record lives exactly as long as requested: 90000',
    wrong: ending((ms) => Math.min(ms, 60_000)),
  },
  {
    name: 'lifetimes are rounded down to seconds',
    breaks: 'a record lives exactly as long as requested: 1999',
    wrong: ending((ms) => Math.floor(ms / 1000) * 1000),
  },
  {
    name: 'lifetimes are rounded up to minutes',
    breaks: 'a record lives exactly as long as requested: 1999',
    wrong: ending((ms) => Math.ceil(ms / 60_000) * 60_000),
  },
  {
    name: 'records never expire',
    breaks: 'a record lives exactly as long as requested: 1999',
    wrong: ending(() => Infinity),
  },
  {
    name: 'an absent `defaultTtlMs` means 30 days',
    breaks: 'fields without an expiry keep',
    wrong: changing((change) => ({ ...change, defaultTtlMs: change.defaultTtlMs ?? 30 * DAY })),
  },
  {
    name: '`defaultTtlMs` is ignored',
    breaks: 'fields without an expiry keep',
    wrong: changing(({ defaultTtlMs: _defaultTtlMs, ...change }) => change),
  },
  {
    name: 'a record lives as long as `lifetimeMs` of the last change',
    breaks: 'a record lives as long as its longest-lived field',
    wrong: afterwards((record, { lifetimeMs }) => {
      record.expires = lifetimeMs === 'never' ? Infinity : Date.now() + lifetimeMs;
    }),
  },
  {
    name: 'expiries are compared with the clock of the store',
    breaks: 'a record lives as long as its longest-lived field, with a writer whose clock is two hours behind',
    wrong: changing((change) => ({ ...change, now: Date.now() })),
  },
  {
    name: 'the later expiry wins',
    breaks: 'a record expires earlier when its longest-lived field',
    wrong: applying((record, change, clock) => {
      const changed = applyChange(record, change, clock);
      if (typeof changed === 'string' || !record) return changed;
      return { ...changed, expires: Math.max(record.expires, changed.expires) };
    }),
  },
  {
    name: '`defaultTtlMs` counts only for changes that write a field without an expiry',
    breaks: 'a field without an expiry keeps the record',
    wrong: applying((record, change, clock) => {
      const changed = applyChange(record, change, clock);
      if (typeof changed === 'string' || !record || [...change.set.values()].some((value) => value.startsWith(':')))
        return changed;
      return { ...changed, expires: Math.min(record.expires, changed.expires) };
    }),
  },
  {
    name: 'every field counts for the expiry of its record',
    breaks: 'a field that starts with `-:` does not count for the expiry of a record with other fields',
    wrong: afterwards((record, { defaultTtlMs = Infinity }) => {
      if ([...record.fields.values()].some((value) => !isCounted(value)))
        record.expires = Math.max(record.expires, Date.now() + defaultTtlMs);
    }),
  },
  {
    name: 'every field counts for the expiry of its record if `defaultTtlMs` is absent',
    breaks: 'a field that starts with `-:` does not count for the expiry of a record with other fields',
    wrong: afterwards((record, { defaultTtlMs }) => {
      if (defaultTtlMs === undefined && [...record.fields.values()].some((value) => !isCounted(value)))
        record.expires = Infinity;
    }),
  },
  {
    name: 'a record without any field that counts expires at once',
    breaks: 'a field that starts with `-:` does not count for the expiry of a record with no other field',
    wrong: afterwards((record) => {
      if (record.fields.size > 0 && ![...record.fields.values()].some(isCounted)) record.expires = 0;
    }),
  },
  {
    name: 'a record without fields lives for `defaultTtlMs`',
    breaks: 'a record without fields lives for',
    wrong: changing((change) => ({ ...change, lifetimeMs: change.defaultTtlMs ?? 'never' })),
  },
  {
    name: 'a record that never expires cannot get an expiry',
    breaks: 'a later change can give an expiry',
    wrong: applying((record, change, clock) => {
      const changed = applyChange(record, change, clock);
      return typeof changed === 'object' && record?.expires === Infinity ? { ...changed, expires: Infinity } : changed;
    }),
  },
  {
    name: 'a lifetime of zero or less means no limit',
    breaks: 'a record that is already expired when it is written',
    wrong: ending((ms) => (ms <= 0 ? Infinity : ms)),
  },
  {
    name: 'a patch merges into an expired record',
    breaks: 'a change of an expired record does not restore its old fields (by its expiry)',
    wrong: patchingExpired((record, change) => (change.mustBeNew || change.mustExist ? null : record)),
  },
  {
    name: '`mustExist` counts an expired record',
    breaks: 'an expired record counts as missing',
    wrong: patchingExpired((record, change) => (change.mustExist ? record : null)),
  },
  {
    name: '`mustBeNew` is refused because of an expired record',
    breaks: 'an expired record counts as missing',
    wrong: patchingExpired((record, change) => (change.mustBeNew ? record : null)),
  },
  {
    name: '`mustExist` revives an expired record',
    breaks: 'an expired record counts as missing',
    wrong: (shelf, right) => ({
      patch: async (key, change, call) => {
        const record = storedIn(shelf, key);
        if (change.mustExist && record) record.expires = Date.now() + HOUR;
        return right.patch(key, change, call);
      },
    }),
  },
];

const idleness: WrongStore[] = [
  {
    name: '`idleMs` is ignored on a write',
    breaks: '`idleMs` limits',
    wrong: changing(({ idleMs: _idleMs, ...change }) => change),
  },
  {
    name: 'the idle limit replaces the expiry',
    breaks: '`idleMs` limits',
    wrong: afterwards((record, { idleMs }) => {
      if (idleMs !== undefined) record.expires = Date.now() + idleMs;
    }),
  },
  {
    name: 'a write does not renew the idle limit',
    breaks: 'a write renews',
    wrong: applying((record, change, clock) => {
      const changed = applyChange(record, change, clock);
      return typeof changed === 'object' && record ? { ...changed, idleUntil: record.idleUntil } : changed;
    }),
  },
  {
    name: 'a write without `idleMs` keeps the idle limit',
    breaks: 'a write without `idleMs`',
    wrong: applying((record, change, clock) => {
      const changed = applyChange(record, change, clock);
      if (typeof changed === 'string' || !record || change.idleMs !== undefined) return changed;
      return { ...changed, idleUntil: record.idleUntil };
    }),
  },
  {
    name: 'every read touches',
    breaks: 'a read without `extendIdleMs`',
    wrong: (_shelf, right) => ({
      read: (key, call) => right.read(key, { ...call, extendIdleMs: call.extendIdleMs ?? HOUR }),
    }),
  },
  {
    name: 'a touch does nothing',
    breaks: 'a touch sets the idle limit',
    wrong: (_shelf, right) => ({ read: (key, { signal }) => right.read(key, { signal }) }),
  },
  {
    name: 'a touch never shortens',
    breaks: 'a touch sets the idle limit',
    wrong: touching(async (shelf, key, call) => {
      await shelf.trip(call);
      const record = liveIn(shelf, key);
      if (record) record.idleUntil = Math.max(record.idleUntil, Date.now() + call.extendIdleMs);
      return record && new Map(record.fields);
    }),
  },
  {
    name: 'a touch moves the expiry',
    breaks: 'a touch never moves the expiry',
    wrong: touching(async (shelf, key, call) => {
      await shelf.trip(call);
      const record = liveIn(shelf, key);
      if (record) record.idleUntil = record.expires = Date.now() + call.extendIdleMs;
      return record && new Map(record.fields);
    }),
  },
  {
    name: 'a touch sets the expiry instead of the idle limit',
    breaks: 'a touch never moves the expiry',
    wrong: touching(async (shelf, key, call) => {
      await shelf.trip(call);
      const record = liveIn(shelf, key);
      if (record) record.expires = Date.now() + call.extendIdleMs;
      return record && new Map(record.fields);
    }),
  },
  {
    name: 'a touch revives an expired record',
    breaks: 'a touch does not create',
    wrong: touching(async (shelf, key, call) => {
      await shelf.trip(call);
      const record = storedIn(shelf, key);
      if (!record) return null;
      const wasLive = endOf(record) > Date.now();
      record.idleUntil = record.expires = Date.now() + call.extendIdleMs;
      return wasLive ? new Map(record.fields) : null;
    }),
  },
  {
    name: 'a touch returns an expired record',
    breaks: 'a touch does not create',
    wrong: touching(async (shelf, key, call) => {
      await shelf.trip(call);
      const record = storedIn(shelf, key);
      return record && new Map(record.fields);
    }),
  },
  {
    name: 'a touch creates a missing record',
    breaks: 'a touch does not create',
    wrong: touching(async (shelf, key, call) => {
      await shelf.trip(call);
      if (!shelf.slots.has(key)) {
        shelf.slots.set(key, { fields: new Map(), expires: Infinity, idleUntil: Date.now() + call.extendIdleMs });
        return null;
      }
      return liveIn(shelf, key)?.fields ?? null;
    }),
  },
  {
    name: 'a touch extends a tombstone',
    breaks: 'a touch does not create',
    wrong: touching(async (shelf, key, call) => {
      await shelf.trip(call);
      const slot = shelf.slots.get(key);
      if (slot && hasTombstone(slot)) slot.tombstoneUntil = Date.now() + call.extendIdleMs;
      return liveIn(shelf, key)?.fields ?? null;
    }),
  },
  {
    name: 'a touch removes a tombstone',
    breaks: 'a touch does not create',
    wrong: touching(async (shelf, key, call) => {
      await shelf.trip(call);
      const slot = shelf.slots.get(key);
      if (slot && hasTombstone(slot)) shelf.slots.delete(key);
      return liveIn(shelf, key)?.fields ?? null;
    }),
  },
];

const readThenWrite = touching(async (shelf, key, call) => {
  await shelf.trip(call);
  const record = liveIn(shelf, key);
  if (!record) return null;
  const fields = new Map(record.fields);
  await shelf.trip(call);
  shelf.slots.set(key, { ...record, fields, idleUntil: Date.now() + call.extendIdleMs });
  return new Map(fields);
});

const removals: WrongStore[] = [
  {
    name: 'a removal returns null',
    breaks: 'destroying a record returns its fields',
    wrong: (_shelf, right) => ({ destroy: async (key, ms, call) => (await right.destroy(key, ms, call)) && null }),
  },
  {
    name: 'a removal leaves no tombstone',
    breaks: 'a destroyed key refuses',
    wrong: (_shelf, right) => ({ destroy: (key, _ms, call) => right.destroy(key, 0, call) }),
  },
  {
    name: 'conditions are checked before the tombstone',
    breaks: 'a destroyed key refuses',
    wrong: (shelf, right) => ({
      async patch(key, change, call) {
        if (change.mustExist && !liveIn(shelf, key)) return 'missing';
        return right.patch(key, change, call);
      },
    }),
  },
  {
    name: 'a removal leaves no tombstone if there is no record',
    breaks: 'a key without a record',
    wrong: (shelf, right) => ({
      async destroy(key, ms, call) {
        const wasThere = shelf.slots.has(key);
        const held = await right.destroy(key, ms, call);
        if (!wasThere) shelf.slots.delete(key);
        return held;
      },
    }),
  },
  {
    name: 'the removal of a missing record returns an empty record',
    breaks: 'a key without a record',
    wrong: (_shelf, right) => ({ destroy: async (key, ms, call) => (await right.destroy(key, ms, call)) ?? new Map() }),
  },
  {
    name: 'the tombstone only hides the record',
    breaks: 'a destroyed key can be used again',
    wrong: (shelf, right) => {
      const hidden = new Map<string, StoredRecord>();
      const back = (key: string): void => {
        const record = hidden.get(key);
        if (!record || hasTombstone(shelf.slots.get(key))) return;
        hidden.delete(key);
        shelf.slots.set(key, record);
      };
      return {
        read: (key, call) => (back(key), right.read(key, call)),
        patch: (key, change, call) => (back(key), right.patch(key, change, call)),
        destroy: async (key, ms, call) => {
          const record = liveIn(shelf, key);
          if (record) hidden.set(key, record);
          return right.destroy(key, ms, call);
        },
      };
    },
  },
  {
    name: 'tombstones are shorter than asked',
    breaks: 'a key without a record',
    wrong: (_shelf, right) => ({ destroy: (key, ms, call) => right.destroy(key, ms / 2, call) }),
  },
  {
    name: 'tombstones live for a minute at most',
    breaks: 'the tombstone lives as long as requested',
    wrong: (_shelf, right) => ({ destroy: (key, ms, call) => right.destroy(key, Math.min(ms, 60_000), call) }),
  },
  {
    name: 'tombstones have 32 bits',
    breaks: 'a tombstone can live for months',
    wrong: (_shelf, right) => ({ destroy: (key, ms, call) => right.destroy(key, Math.min(ms, 2 ** 31 - 1), call) }),
  },
  ...(['expires', 'idleUntil'] as const).map((limit) => ({
    name: `a tombstone ends at the ${limit} of its record`,
    breaks: 'the tombstone lives as long as requested',
    wrong: (shelf: Shelf, right: SessionStore) => ({
      async destroy(key: string, ms: number, call: StoreCall) {
        const end = liveIn(shelf, key)?.[limit] ?? Infinity;
        const held = await right.destroy(key, ms, call);
        const slot = shelf.slots.get(key)!;
        slot.tombstoneUntil = Math.min(slot.tombstoneUntil!, end);
        return held;
      },
    }),
  })),
  {
    name: 'a second removal ends the tombstone',
    breaks: 'a second removal returns',
    wrong: (shelf, right) => ({
      async destroy(key, ms, call) {
        const held = await right.destroy(key, ms, call);
        if (held === 'destroyed') shelf.slots.delete(key);
        return held;
      },
    }),
  },
  {
    name: 'a second removal shortens the first tombstone',
    breaks: 'a second removal returns',
    wrong: (shelf, right) => ({
      async destroy(key, ms, call) {
        const held = await right.destroy(key, ms, call);
        shelf.slots.set(key, tombstone(Date.now() + ms));
        return held;
      },
    }),
  },
  {
    name: 'a second removal returns null',
    breaks: 'a second removal returns',
    wrong: (_shelf, right) => ({
      destroy: async (key, ms, call) => {
        const held = await right.destroy(key, ms, call);
        return held === 'destroyed' ? null : held;
      },
    }),
  },
  {
    name: 'a second removal does not extend the tombstone',
    breaks: 'a second removal with a longer time',
    wrong: (shelf, right) => ({
      destroy: async (key, ms, call) =>
        hasTombstone(shelf.slots.get(key)) ? 'destroyed' : right.destroy(key, ms, call),
    }),
  },
  {
    name: 'a removal returns the fields of an expired record',
    breaks: 'destroying an expired record returns null (by its expiry)',
    wrong: (shelf, right) => ({
      async destroy(key, ms, call) {
        const record = storedIn(shelf, key);
        return (await right.destroy(key, ms, call)) ?? (record && record.fields);
      },
    }),
  },
];

const sweeps: WrongStore[] = [
  {
    name: 'a sweep removes records that expire within 30 days',
    breaks: '`sweep` removes',
    wrong: (shelf) => ({
      async sweep(_limit, call) {
        await shelf.trip(call);
        const found = [...shelf.slots].filter(
          ([, slot]) => (slot.tombstoneUntil ?? endOf(slot)) < Date.now() + 30 * DAY,
        );
        for (const [key] of found) shelf.slots.delete(key);
        return 0;
      },
    }),
  },
  {
    name: 'a sweep removes tombstones',
    breaks: '`sweep` removes',
    wrong: (shelf, right) => ({
      async sweep(limit, call) {
        for (const [key, slot] of shelf.slots) if (slot.tombstoneUntil !== undefined) shelf.slots.delete(key);
        return right.sweep!(limit, call);
      },
    }),
  },
  {
    name: 'a sweep removes records that never expire',
    breaks: '`sweep` removes',
    wrong: (shelf, right) => ({
      async sweep(limit, call) {
        for (const [key, slot] of shelf.slots) if (slot.expires === Infinity) shelf.slots.delete(key);
        return right.sweep!(limit, call);
      },
    }),
  },
  {
    name: 'a sweep does nothing',
    breaks: '`sweep` removes',
    needsFakeClock: true,
    wrong: () => ({ sweep: async () => 0 }),
  },
  {
    name: 'a sweep ignores its limit',
    breaks: '`sweep` removes',
    wrong: (_shelf, right) => ({ sweep: (_limit, call) => right.sweep!(Infinity, call) }),
  },
  {
    name: 'a sweep finds and removes records in two steps',
    breaks: 'a sweep does not remove',
    wrong: (shelf) => ({
      async sweep(limit, call) {
        await shelf.trip(call);
        const found = [...shelf.slots].filter(
          ([, slot]) => endOf(slot) <= Date.now() && slot.tombstoneUntil === undefined,
        );
        for (const [key] of found.slice(0, limit)) {
          await shelf.trip(call);
          shelf.slots.delete(key);
        }
        return found.length;
      },
    }),
  },
];

/** Applies a change in two statements: one reads and the other writes. */
const inTwoSteps = (): WrongStore['wrong'] => (shelf) => ({
  async patch(key, change, call) {
    await shelf.trip(call);
    if (hasTombstone(shelf.slots.get(key))) return 'destroyed';
    const changed = applyChange(liveIn(shelf, key), change, Date.now());
    await shelf.trip(call);
    if (typeof changed === 'string') return changed;
    shelf.slots.set(key, changed);
    return 'applied';
  },
});

const races: WrongStore[] = [
  { name: 'a change reads the record and writes it back', breaks: '64 concurrent writers', wrong: inTwoSteps() },
  {
    name: '`expect` is checked in a step before the write',
    breaks: 'of concurrent changes that expect',
    wrong: checkingFirst((record, change) => (holds(record, change) ? undefined : 'conflict'), { expect: new Map() }),
  },
  {
    name: '`mustBeNew` is checked in a step before the write',
    breaks: 'of concurrent changes that create a record',
    wrong: checkingFirst((record, change) => (change.mustBeNew && record ? 'conflict' : undefined), {
      mustBeNew: false,
    }),
  },
  {
    name: 'a removal reads in an earlier step, and misses the writes in between',
    breaks:
      'destroying a record during writes returns exactly the writes that were applied, and no write restores it: a record',
    wrong: (shelf, right) => ({
      async destroy(key, ms, call) {
        await shelf.trip(call);
        const seen = liveIn(shelf, key);
        const fields = seen && new Map(seen.fields);
        const held = await right.destroy(key, ms, call);
        return held === 'destroyed' ? held : fields;
      },
    }),
  },
  {
    name: 'a removal looks for a record in an earlier step, and misses one that is created in between',
    breaks:
      'destroying a record during writes returns exactly the writes that were applied, and no write restores it: no record',
    wrong: (shelf, right) => ({
      async destroy(key, ms, call) {
        await shelf.trip(call);
        const wasThere = liveIn(shelf, key) !== null;
        const held = await right.destroy(key, ms, call);
        return wasThere || held === 'destroyed' ? held : null;
      },
    }),
  },
  {
    name: 'a change checks for a tombstone in a step before the write',
    breaks:
      'destroying a record during writes returns exactly the writes that were applied, and no write restores it: a record',
    wrong: (shelf) => ({
      async patch(key, change, call) {
        await shelf.trip(call);
        if (hasTombstone(shelf.slots.get(key))) return 'destroyed';
        await shelf.trip(call);
        const changed = applyChange(liveIn(shelf, key), change, Date.now());
        if (typeof changed === 'string') return changed;
        shelf.slots.set(key, changed);
        return 'applied';
      },
    }),
  },
  {
    name: 'a removal deletes the record in one step and leaves the tombstone in another',
    breaks:
      'destroying a record during writes returns exactly the writes that were applied, and no write restores it: a record',
    wrong: (shelf, right) => ({
      async destroy(key, ms, call) {
        await shelf.trip(call);
        if (hasTombstone(shelf.slots.get(key))) return right.destroy(key, ms, call);
        const held = liveIn(shelf, key)?.fields ?? null;
        shelf.slots.delete(key);
        await right.destroy(key, ms, call);
        return held;
      },
    }),
  },
  {
    name: 'two concurrent removals both return the record',
    breaks: 'of two concurrent removals',
    wrong: (shelf, right) => ({
      async destroy(key, ms, call) {
        await shelf.trip(call);
        const seen = liveIn(shelf, key)?.fields;
        const held = await right.destroy(key, ms, call);
        return seen ? new Map(seen) : held;
      },
    }),
  },
  {
    name: '`set` and `unset` are applied in two steps',
    breaks: 'a reader sees all of a change',
    wrong: (_shelf, right) => ({
      async patch(key, change, call) {
        const result = await right.patch(key, { ...change, unset: [] }, call);
        if (result !== 'applied' || change.unset.length === 0) return result;
        return right.patch(key, { ...change, set: new Map(), ifAbsent: new Map(), unset: change.unset }, call);
      },
    }),
  },
  {
    name: '`unset` and `set` are applied in two steps',
    breaks: 'a reader sees all of a change',
    wrong: (_shelf, right) => ({
      async patch(key, change, call) {
        if (change.unset.length > 0) await right.patch(key, { ...change, set: new Map(), ifAbsent: new Map() }, call);
        return right.patch(key, { ...change, unset: [] }, call);
      },
    }),
  },
  { name: 'a touch reads the record and writes it back', breaks: 'a touch does not lose', wrong: readThenWrite },
  { name: 'a touch restores a destroyed record', breaks: 'a touch does not restore', wrong: readThenWrite },
];

const failures: WrongStore[] = [
  {
    name: '`signal` is ignored',
    breaks: 'a call whose signal has aborted',
    wrong: (_shelf, right) => {
      const open = { signal: new AbortController().signal };
      return {
        read: (key, call) => right.read(key, { ...call, ...open }),
        patch: (key, change) => right.patch(key, change, open),
        destroy: (key, ms) => right.destroy(key, ms, open),
      };
    },
  },
  ...(['read', 'patch', 'destroy'] as const).map((method): WrongStore => ({
    name: `a ${method} ignores \`signal\``,
    breaks: 'a call whose signal has aborted',
    wrong: (_shelf, right) => {
      const open = { signal: new AbortController().signal };
      if (method === 'read') return { read: (key, call) => right.read(key, { ...call, ...open }) };
      if (method === 'patch') return { patch: (key, change) => right.patch(key, change, open) };
      return { destroy: (key, ms) => right.destroy(key, ms, open) };
    },
  })),
  {
    name: 'a failed read returns null',
    breaks: 'an unreachable backend',
    wrong: (_shelf, right) => ({ read: (key, call) => right.read(key, call).catch(() => null) }),
  },
  {
    name: 'a failed change returns `applied`',
    breaks: 'an unreachable backend',
    wrong: (_shelf, right) => ({
      patch: (key, change, call): ReturnType<Patch> => right.patch(key, change, call).catch(() => 'applied'),
    }),
  },
  {
    name: 'a failed removal returns null',
    breaks: 'an unreachable backend',
    wrong: (_shelf, right) => ({ destroy: (key, ms, call) => right.destroy(key, ms, call).catch(() => null) }),
  },
  {
    name: 'a failed touch returns null',
    breaks: 'an unreachable backend',
    wrong: (_shelf, right) => ({
      read: (key, call) =>
        call.extendIdleMs === undefined ? right.read(key, call) : right.read(key, call).catch(() => null),
    }),
  },
  {
    name: 'a failure has no error code',
    breaks: 'an unreachable backend',
    wrong: (_shelf, right) => ({
      read: (key, call) =>
        right.read(key, call).catch(() => {
          throw new Error('connect ECONNREFUSED');
        }),
    }),
  },
];

const HISTORIES = 'random sequences of calls';

/** The record if its expiry has not passed. It ignores the idle limit. */
const liveByDeadline = (shelf: Shelf, key: string): StoredRecord | null => {
  const record = storedIn(shelf, key);
  return record && record.expires > Date.now() ? record : null;
};

/** Combinations of rules, and mistakes that random histories have found. */
const combinations: WrongStore[] = [
  {
    name: 'a change ignores the idle limit of a record',
    breaks: 'an expired record counts as missing for every change (by its idle)',
    wrong: (shelf) => ({
      async patch(key, change, call) {
        await shelf.trip(call);
        if (hasTombstone(shelf.slots.get(key))) return 'destroyed';
        const changed = applyChange(liveByDeadline(shelf, key), change, Date.now());
        if (typeof changed === 'string') return changed;
        shelf.slots.set(key, changed);
        return 'applied';
      },
    }),
  },
  {
    name: 'a touch ignores the idle limit of a record',
    breaks: 'a touch does not create a missing record, revive an expired one, or change a tombstone (by its idle)',
    wrong: touching(async (shelf, key, call) => {
      await shelf.trip(call);
      const record = liveByDeadline(shelf, key);
      if (record) record.idleUntil = Date.now() + call.extendIdleMs;
      return record && new Map(record.fields);
    }),
  },
  {
    name: 'a removal ignores the idle limit of a record',
    breaks: 'destroying an expired record returns null (by its idle)',
    wrong: (shelf, right) => ({
      async destroy(key, ms, call) {
        const record = liveByDeadline(shelf, key);
        return (await right.destroy(key, ms, call)) ?? (record && record.fields);
      },
    }),
  },
  {
    name: 'a change that writes the same values does nothing',
    breaks: 'a write renews the idle limit',
    wrong: applying((record, change, clock) => {
      const changed = applyChange(record, change, clock);
      if (typeof changed === 'string' || !record) return changed;
      const same = [...changed.fields].every(([name, value]) => record.fields.get(name) === value);
      return same && changed.fields.size === record.fields.size ? record : changed;
    }),
  },
  {
    name: 'an empty change does nothing',
    breaks: 'a write renews the idle limit',
    wrong: applying((record, change, clock) => {
      const changed = applyChange(record, change, clock);
      return typeof changed === 'object' && record && change.set.size === 0 ? record : changed;
    }),
  },
  {
    name: 'a change that is already expired does not replace the record',
    breaks: 'a record that is already expired when it is written',
    wrong: applying((record, change, clock) => {
      const changed = applyChange(record, change, clock);
      return typeof changed === 'object' && record && endOf(changed) <= clock ? record : changed;
    }),
  },
  {
    name: '`expect` is checked after `unset`',
    breaks: HISTORIES,
    wrong: applying((record, change, clock) => {
      const fields = new Map(record?.fields);
      for (const name of change.unset) fields.delete(name);
      return applyChange(record && { ...record, fields }, change, clock);
    }),
  },
  {
    name: '`expect` ignores the case of values',
    breaks: '`expect` refuses a change unless',
    wrong: applying((record, change, clock) => {
      const expect = new Map(
        [...(change.expect ?? [])].map(([name, value]) => {
          const stored = record?.fields.get(name) ?? null;
          return [name, value !== null && stored?.toLowerCase() === value.toLowerCase() ? stored : value] as const;
        }),
      );
      return applyChange(record, { ...change, expect }, clock);
    }),
  },
  {
    name: '`mustBeNew` takes a record without fields for a missing one',
    breaks: '`mustBeNew` refuses',
    wrong: applying((record, change, clock) =>
      applyChange(record, { ...change, mustBeNew: change.mustBeNew === true && record?.fields.size !== 0 }, clock),
    ),
  },
  {
    name: 'the idle limit uses the clock of the writer',
    breaks: HISTORIES,
    wrong: afterwards((record, { idleMs, now }) => {
      if (idleMs !== undefined) record.idleUntil = now + idleMs;
    }),
  },
  {
    name: 'the expiry ignores the fields that `ifAbsent` writes',
    breaks: HISTORIES,
    wrong: applying((record, change, clock) => {
      const changed = applyChange(record, change, clock);
      const without = applyChange(record, { ...change, ifAbsent: new Map() }, clock);
      return typeof changed === 'object' && typeof without === 'object'
        ? { ...changed, expires: without.expires }
        : changed;
    }),
  },
  {
    name: 'a lifetime of "never" overrides the expiries of the fields',
    breaks: HISTORIES,
    wrong: afterwards((record, { lifetimeMs }) => {
      if (lifetimeMs === 'never') record.expires = Infinity;
    }),
  },
  {
    name: 'a removal of a record without fields returns null',
    breaks: 'destroying a record without fields',
    wrong: (_shelf, right) => ({
      async destroy(key, ms, call) {
        const held = await right.destroy(key, ms, call);
        return held instanceof Map && held.size === 0 ? null : held;
      },
    }),
  },
  {
    name: 'an empty change of a destroyed key returns `applied`',
    breaks: 'a destroyed key refuses',
    wrong: (_shelf, right) => ({
      async patch(key, change, call) {
        const result = await right.patch(key, change, call);
        return result === 'destroyed' && change.set.size === 0 && !change.ifAbsent ? 'applied' : result;
      },
    }),
  },
  {
    name: 'a key that has been destroyed cannot be destroyed again',
    breaks: 'a destroyed key can be used again',
    wrong: (_shelf, right) => {
      const before = new Set<string>();
      return {
        destroy: async (key, ms, call) => {
          if (before.has(key)) return 'destroyed';
          before.add(key);
          return right.destroy(key, ms, call);
        },
      };
    },
  },
  {
    name: '`purge` checks and removes in two steps',
    breaks: '`purge` keeps a field that is renewed',
    wrong: (shelf, right) => ({
      async patch(key, change, call) {
        if (!change.purge) return right.patch(key, change, call);
        await shelf.trip(call);
        const held = liveIn(shelf, key)?.fields;
        const past = change.purge.filter((name) => (expiryOf(held?.get(name) ?? '') ?? Infinity) < change.now);
        return right.patch(key, { ...change, unset: [...change.unset, ...past], purge: [] }, call);
      },
    }),
  },
  {
    name: 'an expected null is checked in a step before the write',
    breaks: 'of concurrent changes that expect',
    wrong: checkingFirst((record, change) => (holds(record, change) ? undefined : 'conflict'), { expect: new Map() }),
  },
  {
    name: 'a read fetches the fields in two steps',
    breaks: 'a reader sees all of a change',
    wrong: (_shelf, right) => ({
      async read(key, call) {
        const [first, second] = [await right.read(key, call), await right.read(key, call)];
        if (!first || !second) return second;
        const isFirst = ([name]: [string, string]) => name.endsWith('1');
        return new Map([...[...first].filter(isFirst), ...[...second].filter((it) => !isFirst(it))]);
      },
    }),
  },
  {
    name: 'a concurrent removal shortens the tombstone',
    breaks: 'of two concurrent removals',
    wrong: (shelf, right) => ({
      async destroy(key, ms, call) {
        const held = await right.destroy(key, ms, call);
        await shelf.trip(call);
        shelf.slots.set(key, tombstone(Date.now() + ms));
        return held;
      },
    }),
  },
  {
    name: 'removals of different keys share a variable',
    breaks: 'tombstones and records do not evict',
    wrong: (shelf, right) => {
      let current = '';
      return {
        async destroy(key, ms, call) {
          current = key;
          await shelf.trip(call);
          return right.destroy(current, ms, call);
        },
      };
    },
  },
  {
    name: 'only a hundred tombstones are kept',
    breaks: 'tombstones and records do not evict',
    wrong: (shelf, right) => ({
      async destroy(key, ms, call) {
        const held = await right.destroy(key, ms, call);
        const destroyed = [...shelf.slots].filter(([, slot]) => slot.tombstoneUntil !== undefined);
        for (const [oldest] of destroyed.slice(0, -100)) shelf.slots.delete(oldest);
        return held;
      },
    }),
  },
  {
    name: 'each refused change uses up one of ten connections',
    breaks: 'a call whose signal has aborted',
    wrong: (_shelf, right) => {
      let free = 10;
      return {
        async patch(key, change, call) {
          if (free === 0) throw new Error('the pool is used up');
          const result = await right.patch(key, change, call);
          if (result === 'conflict') free--;
          return result;
        },
      };
    },
  },
  {
    name: 'a failed read returns the fields of an earlier read',
    breaks: 'an unreachable backend',
    wrong: (_shelf, right) => {
      const cache = new Map<string, Fields | null>();
      return {
        read: (key, call) =>
          right.read(key, call).then(
            (fields) => {
              cache.set(key, fields);
              return fields;
            },
            () => cache.get(key) ?? null,
          ),
      };
    },
  },
];

/** Stores, each of which breaks one rule. */
export const wrongStores: WrongStore[] = [
  ...fieldsAndNames,
  ...changes,
  ...lifetimes,
  ...idleness,
  ...removals,
  ...sweeps,
  ...races,
  ...failures,
  ...combinations,
];
