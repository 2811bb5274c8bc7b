import { expiryOf, fieldName, isExpired, keyOfField } from './fields.ts';
import {
  DEFAULT_TTL_SECONDS,
  type Change,
  type Fields,
  type Lifetime,
  type PatchResult,
  type SessionStore,
  type StoreCall,
} from './store.ts';

/** The fields of a session by session key, such as a Map of them. Shared between readers: not to be changed. */
export interface SessionFields extends Iterable<[key: string, field: string]> {
  get(key: string): string | undefined;
  /** The expiries of all fields but those of these keys, where that takes less than going through the fields. */
  expiries?(except: ReadonlySet<string>): (number | undefined)[];
  /** What lies in the record under a key that cannot be opened, by its name there; nothing where there is no such thing. */
  unopened?(key: string): ReadonlyMap<string, string>;
}

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

/** How the fields of a session lie in one record. */
export interface Form {
  /** Under which name a session key lies. */
  name(key: string): string;
  /** What lies there, for an encoded field. The same field is always the same text. */
  value(key: string, field: string): string;
  /** The session key and the encoded field; undefined when they lie there in another form, or are damaged. */
  read(name: string, value: string): [key: string, field: string] | undefined;
}

/** What the names of sealed fields begin with. */
export const SEALED = '~';

/** Legible: names and values as they are. */
export const plain: Form = {
  name: fieldName,
  value: (_key, field) => field,
  read(name, value) {
    const key = name.startsWith(SEALED) ? undefined : keyOfField(name);
    return key === undefined ? undefined : [key, value];
  },
};

/** The forms in which fields of a record may lie. The first is the one that is written. */
export type Forms = readonly [Form, ...Form[]];

/**
 * The session in a record. A field that is sealed is opened when somebody asks for it, or for all. What is in none of the forms is left
 * out, and told to `onDamaged` at that time.
 */
export function toSession(fields: Fields, forms: Forms, onDamaged: () => void): SessionFields {
  if (forms.length === 1 && forms[0] === plain && ![...fields.keys()].some((name) => /^["~]/.test(name))) return fields;
  const known = new Map<string, string | undefined>();
  const damaged = new Set<string>();
  let all: Fields | undefined;

  const report = (name: string): void => {
    if (damaged.has(name)) return;
    damaged.add(name);
    onDamaged();
  };
  const stored = (key: string): [form: Form, name: string, value: string][] =>
    forms.flatMap((form) => {
      const name = form.name(key);
      const value = fields.get(name);
      return value === undefined ? [] : [[form, name, value]];
    });
  const open = (key: string): string | undefined => {
    for (const [form, name, value] of stored(key)) {
      const entry = form.read(name, value);
      if (entry) return entry[1];
      report(name);
    }
    return undefined;
  };
  const openAll = (): Fields => {
    const session: Fields = new Map();
    const unread = new Set(fields.keys());
    // What lies in the first form was written last, whatever the others still hold.
    for (const form of forms.toReversed()) {
      for (const [name, value] of fields) {
        const entry = form.read(name, value);
        if (!entry) continue;
        session.set(...entry);
        unread.delete(name);
      }
    }
    unread.forEach(report);
    return session;
  };

  return {
    get(key) {
      if (all) return all.get(key);
      if (!known.has(key)) known.set(key, open(key));
      return known.get(key);
    },
    [Symbol.iterator]: () => (all ??= openAll())[Symbol.iterator](),
    unopened: (key) =>
      new Map(stored(key).flatMap(([form, name, value]) => (form.read(name, value) ? [] : [[name, value]]))),
    expiries(except) {
      const names = new Set([...except].flatMap((key) => forms.map((form) => form.name(key))));
      return [...fields].filter(([name]) => !names.has(name)).map(([, value]) => expiryOf(value));
    },
  };
}

/** The same session with one field changed, or without it (null). */
export function withField(session: SessionFields, key: string, field: string | null): SessionFields {
  const { base, changes: before }: Partial<Changed> = session as Partial<Changed>;
  const changes = new Map(before).set(key, field);
  return changed(base ?? session, changes);
}

interface Changed extends SessionFields {
  base: SessionFields;
  changes: ReadonlyMap<string, string | null>;
}

function changed(base: SessionFields, changes: ReadonlyMap<string, string | null>): Changed {
  const added = (): [string, string][] => [...changes].filter((entry): entry is [string, string] => entry[1] !== null);
  return {
    base,
    changes,
    get: (key) => (changes.has(key) ? (changes.get(key) ?? undefined) : base.get(key)),
    unopened: (key) => (changes.has(key) ? new Map() : (base.unopened?.(key) ?? new Map())),
    *[Symbol.iterator]() {
      for (const [key, field] of base) {
        const now = changes.has(key) ? changes.get(key) : field;
        if (typeof now === 'string') yield [key, now];
      }
      for (const [key, field] of added()) if (base.get(key) === undefined) yield [key, field];
    },
    expiries: (except) => [
      ...expiriesExcept(base, new Set([...except, ...changes.keys()])),
      ...added()
        .filter(([key]) => !except.has(key))
        .map(([, field]) => expiryOf(field)),
    ],
  };
}

/** The expiries of all fields but those of these keys. */
export function expiriesExcept(session: SessionFields, except: ReadonlySet<string>): (number | undefined)[] {
  if (session.expiries) return session.expiries(except);
  return [...session].filter(([key]) => !except.has(key)).map(([, field]) => expiryOf(field));
}

/** The fields that have not expired. */
export function living(fields: SessionFields): Fields {
  const now = Date.now();
  return new Map([...fields].filter(([, field]) => !isExpired(expiryOf(field), now)));
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
  // A session without entries has nothing to live for; it goes by itself even where others live for ever.
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
