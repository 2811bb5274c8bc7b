import { type FieldCodec, type FieldCodecs, plaintext, type SessionFields, toSession } from '../codec/field-codec.ts';
import { createdAt, CREATED_KEY, expiryOf, isCounted, isExpired } from '../codec/field.ts';

import {
  type Change,
  DEFAULT_TTL_SECONDS,
  type Fields,
  type Lifetime,
  type PatchResult,
  type SessionStore,
  type StoreCall,
} from '../contract/store.ts';
import { TOMBSTONE_MS } from '../contract/tombstone.ts';

/** A change of a session. It has session keys where `Change` has field names; `toRecord` converts it. */
export interface SessionChange {
  set: Fields;
  ifAbsent?: Fields;
  unset?: readonly string[];
  purge?: readonly string[];
  expect?: ReadonlyMap<string, string | null>;
  /** Like `expect`, but with names and values as stored in the record. Used for fields that cannot be decoded. */
  expectUnopened?: ReadonlyMap<string, string> | undefined;
  mustExist?: boolean;
  mustBeNew?: boolean;
  /**
   * The field that says when the session was created (see `CREATED_KEY`); null when it is unknown. Stored only if the change creates the
   * record.
   *
   * @default now
   */
  created?: string | null | undefined;
  /** The expiries of the fields that the writer knows and does not change. */
  untouched?: Iterable<number | undefined>;
}

/** The options `ttl` and `idleTtl`, in milliseconds. */
export interface ExpiryPolicy {
  /** Undefined: sessions do not expire by default. */
  ttlMs: number | undefined;
  /** Undefined: no idle limit. */
  idleMs: number | undefined;
}

/**
 * Converts a change of a session to a change of its record.
 *
 * @param codecs the codecs that may have written the record. The first one encodes, and fields of the others are removed.
 * @param expected the codec with which the fields in `expect` are stored. Default: the first.
 * @param now the time, in epoch milliseconds.
 */
export function toRecord(
  change: SessionChange,
  { ttlMs, idleMs }: ExpiryPolicy,
  codecs: FieldCodecs = [plaintext],
  expected: FieldCodec = codecs[0],
  now: number = Date.now(),
): Change {
  const [codec, ...others] = codecs;
  const set: Fields = new Map();
  const unset: string[] = [];
  let lifetimeMs = -Infinity;
  const extendLifetime = (expires: number | undefined): void => {
    lifetimeMs = Math.max(lifetimeMs, expires === undefined ? (ttlMs ?? Infinity) : expires - now);
  };

  for (const key of change.unset ?? []) unset.push(...codecs.map((each) => each.name(key)));
  for (const [key, field] of change.set) {
    const expires = expiryOf(field);
    unset.push(...others.map((each) => each.name(key)));
    // Setting a value that has already expired removes the field.
    if (isExpired(expires, now)) unset.push(codec.name(key));
    else {
      set.set(codec.name(key), codec.value(key, field));
      if (isCounted(field)) extendLifetime(expires);
    }
  }
  for (const field of change.ifAbsent?.values() ?? []) extendLifetime(expiryOf(field));
  for (const expires of change.untouched ?? []) extendLifetime(expires);

  const { purge, expect } = change;
  const ifAbsent = withCreated(change, now);
  return {
    set,
    unset,
    lifetimeMs: toLifetime(lifetimeMs, ttlMs),
    now,
    ...(ifAbsent && {
      ifAbsent: new Map([...ifAbsent].map(([key, field]) => [codec.name(key), codec.value(key, field)])),
    }),
    ...(purge && { purge: purge.flatMap((key) => codecs.map((each) => each.name(key))) }),
    ...(expect && { expect: new Map([...expectedOf(expect, codecs, expected), ...(change.expectUnopened ?? [])]) }),
    ...(change.mustExist && { mustExist: true }),
    ...(change.mustBeNew && { mustBeNew: true }),
    ...(ttlMs !== undefined && { defaultTtlMs: ttlMs }),
    ...(idleMs !== undefined && { idleMs }),
  };
}

/** The fields in `ifAbsent`, with the time of the creation if the change may create the record. */
function withCreated({ ifAbsent, mustExist, created }: SessionChange, now: number): Fields | undefined {
  if (mustExist || created === null) return ifAbsent;
  return new Map(ifAbsent).set(CREATED_KEY, created ?? createdAt(now));
}

/** `expect` by field name. A field must be stored by the codec `expected`, and by no other. */
function expectedOf(
  expect: ReadonlyMap<string, string | null>,
  codecs: FieldCodecs,
  expected: FieldCodec,
): Map<string, string | null> {
  const fields = new Map<string, string | null>();
  for (const [key, field] of expect) {
    for (const codec of codecs) {
      fields.set(codec.name(key), field !== null && codec === expected ? codec.value(key, field) : null);
    }
  }
  return fields;
}

function toLifetime(longest: number, ttlMs: number | undefined): Lifetime {
  if (longest === Infinity) return 'never';
  // An empty session gets the default ttl even if sessions never expire. Otherwise it would stay in the backend indefinitely.
  if (longest === -Infinity) return ttlMs ?? DEFAULT_TTL_SECONDS * 1000;
  return Math.max(Math.floor(longest), 0);
}

/** The contents of a session when it was destroyed: null when there was none, 'destroyed' when it had already been destroyed. */
export type FinalContents = SessionFields | 'destroyed' | null;

/** One session in a store, for the duration of one operation. */
export interface SessionRecord {
  /** Resolves to the live session, or to null. Extends the idle limit if the driver has one. */
  read(): Promise<SessionFields | null>;
  /** Applies a change. */
  patch(change: SessionChange): Promise<PatchResult>;
  /** Destroys the session and resolves to its last contents. */
  destroy(): Promise<FinalContents>;
}

/** Where a session is stored, and how. */
export interface RecordPlace {
  key: string;
  /** The codecs of the fields. The first one writes. While secrets are rotated, a record may contain fields of several codecs. */
  codecs: FieldCodecs;
}

/** Options of `recordIn`. */
export interface RecordOptions extends RecordPlace {
  store: SessionStore;
  call: StoreCall;
  expiry: ExpiryPolicy;
  /** Called for each stored field that could not be decoded and was left out. */
  onCorrupt(): void;
}

/** Creates the view of one session in a store. */
export function recordIn(options: RecordOptions): SessionRecord {
  const { store, call, key, codecs, expiry, onCorrupt } = options;
  return {
    async read() {
      const touch = expiry.idleMs === undefined ? call : { signal: call.signal, extendIdleMs: expiry.idleMs };
      const fields = await store.read(key, touch);
      if (!fields) return null;
      const session = toSession(fields, codecs, onCorrupt);
      // Encrypt old fields again on reading. Otherwise, fields that nobody changes would be lost when the old secret is removed.
      if (codecs.length > 1) await (await import('./rewrite.ts')).rewrite(options, fields, session);
      return session;
    },

    async patch(change) {
      let result: PatchResult = 'conflict';
      // While secrets are rotated, any codec may have written the fields in `expect`. Try one after another.
      for (const codec of change.expect ? codecs : [codecs[0]]) {
        if (result === 'conflict') result = await store.patch(key, toRecord(change, expiry, codecs, codec), call);
      }
      return result;
    },

    async destroy() {
      const contents = await store.destroy(key, TOMBSTONE_MS, call);
      return contents instanceof Map ? toSession(contents, codecs, onCorrupt) : contents;
    },
  };
}
