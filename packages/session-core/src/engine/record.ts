import { type Form, type Forms, plain } from '../codec/field-codec.ts';
import { expiryOf, isExpired } from '../codec/field.ts';

import {
  type Change,
  DEFAULT_TTL_SECONDS,
  type Fields,
  type Lifetime,
  type PatchResult,
  type SessionStore,
  type StoreCall,
} from '../contract/store.ts';

/** A change in terms of a session; `toRecord` turns it into a `Change` of a record. Names are session keys. */
export interface SessionChange {
  set: Fields;
  ifAbsent?: Fields;
  unset?: readonly string[];
  purge?: readonly string[];
  expect?: ReadonlyMap<string, string | null>;
  /** The same by names of the record: what is expected where it cannot be opened. */
  expectUnopened?: ReadonlyMap<string, string> | undefined;
  mustExist?: boolean;
  mustBeNew?: boolean;
  /** The expiries of fields that the writer knows of and leaves as they are. */
  untouched?: Iterable<number | undefined>;
}

export interface Times {
  ttlMs: number | undefined;
  idleMs: number | undefined;
}

/**
 * The change of a record that a change of its session is.
 *
 * @param expected the form in which what `expect` names lies. Default: the first.
 */
export function toRecord(
  change: SessionChange,
  { ttlMs, idleMs }: Times,
  forms: Forms = [plain],
  expected: Form = forms[0],
  now: number = Date.now(),
): Change {
  const [form, ...others] = forms;
  const set: Fields = new Map();
  const unset: string[] = [];
  let lifetimeMs = -Infinity;
  const outlives = (expires: number | undefined): void => {
    lifetimeMs = Math.max(lifetimeMs, expires === undefined ? (ttlMs ?? Infinity) : expires - now);
  };

  for (const key of change.unset ?? []) unset.push(...forms.map((each) => each.name(key)));
  for (const [key, field] of change.set) {
    const expires = expiryOf(field);
    unset.push(...others.map((each) => each.name(key)));
    // What is past when it is set is not there afterwards.
    if (isExpired(expires, now)) unset.push(form.name(key));
    else {
      set.set(form.name(key), form.value(key, field));
      outlives(expires);
    }
  }
  for (const field of change.ifAbsent?.values() ?? []) outlives(expiryOf(field));
  for (const expires of change.untouched ?? []) outlives(expires);

  const { ifAbsent, purge, expect } = change;
  return {
    set,
    unset,
    lifetimeMs: toLifetime(lifetimeMs, ttlMs),
    now,
    ...(ifAbsent && {
      ifAbsent: new Map([...ifAbsent].map(([key, field]) => [form.name(key), form.value(key, field)])),
    }),
    ...(purge && { purge: purge.flatMap((key) => forms.map((each) => each.name(key))) }),
    ...(expect && { expect: new Map([...expectedOf(expect, forms, expected), ...(change.expectUnopened ?? [])]) }),
    ...(change.mustExist && { mustExist: true }),
    ...(change.mustBeNew && { mustBeNew: true }),
    ...(ttlMs !== undefined && { capMs: ttlMs }),
    ...(idleMs !== undefined && { idleMs }),
  };
}

function expectedOf(
  expect: ReadonlyMap<string, string | null>,
  forms: Forms,
  expected: Form,
): Map<string, string | null> {
  const fields = new Map<string, string | null>();
  for (const [key, field] of expect) {
    for (const form of forms) {
      fields.set(form.name(key), field !== null && form === expected ? form.value(key, field) : null);
    }
  }
  return fields;
}

function toLifetime(longest: number, ttlMs: number | undefined): Lifetime {
  if (longest === Infinity) return 'never';
  // An empty session expires after the default ttl, even where sessions never expire.
  if (longest === -Infinity) return ttlMs ?? DEFAULT_TTL_SECONDS * 1000;
  return Math.max(Math.floor(longest), 0);
}

/** One session in a store, for as long as one operation on it takes. */
export interface SessionRecord {
  driver: string;
  store: SessionStore;
  call: StoreCall;
  key: string;
  forms: Forms;
  times: Times;
  onDamaged(): void;
}

export async function patchRecord(record: SessionRecord, change: SessionChange): Promise<PatchResult> {
  const { store, call, key, forms, times } = record;
  let result: PatchResult = 'conflict';
  // While secrets change, what is expected may lie there in any form.
  for (const form of change.expect ? forms : [forms[0]]) {
    if (result === 'conflict') result = await store.patch(key, toRecord(change, times, forms, form), call);
  }
  return result;
}
