import { type FieldCodec, type FieldCodecs, plaintext, type SessionFields, toSession } from '../codec/field-codec.ts';
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
import { TOMBSTONE_MS } from '../contract/tombstone.ts';

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

export interface ExpiryPolicy {
  ttlMs: number | undefined;
  idleMs: number | undefined;
}

/**
 * The change of a record that a change of its session is.
 *
 * @param expected the codec of the fields that `expect` names. Default: the first.
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
  const outlives = (expires: number | undefined): void => {
    lifetimeMs = Math.max(lifetimeMs, expires === undefined ? (ttlMs ?? Infinity) : expires - now);
  };

  for (const key of change.unset ?? []) unset.push(...codecs.map((each) => each.name(key)));
  for (const [key, field] of change.set) {
    const expires = expiryOf(field);
    unset.push(...others.map((each) => each.name(key)));
    // What is past when it is set is not there afterwards.
    if (isExpired(expires, now)) unset.push(codec.name(key));
    else {
      set.set(codec.name(key), codec.value(key, field));
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
  // An empty session expires after the default ttl, even where sessions never expire.
  if (longest === -Infinity) return ttlMs ?? DEFAULT_TTL_SECONDS * 1000;
  return Math.max(Math.floor(longest), 0);
}

/** What a session held when it was removed: null when there was none, 'destroyed' when it had been removed already. */
export type FinalContents = SessionFields | 'destroyed' | null;

/** One session in a store, for as long as one operation on it takes. */
export interface SessionRecord {
  /** The live session, or null. Extends its idle limit, where there is one. */
  read(): Promise<SessionFields | null>;
  patch(change: SessionChange): Promise<PatchResult>;
  /** Removes the session for good. */
  destroy(): Promise<FinalContents>;
}

export interface RecordOptions {
  store: SessionStore;
  call: StoreCall;
  key: string;
  /** The first one writes. A record may hold fields of each while secrets change. */
  codecs: FieldCodecs;
  expiry: ExpiryPolicy;
  /** A stored field could not be read and was left out. */
  onCorrupt(): void;
}

export function recordIn(options: RecordOptions): SessionRecord {
  const { store, call, key, codecs, expiry, onCorrupt } = options;
  return {
    async read() {
      const touch = expiry.idleMs === undefined ? call : { ...call, extendIdleMs: expiry.idleMs };
      const fields = await store.read(key, touch);
      if (!fields) return null;
      const session = toSession(fields, codecs, onCorrupt);
      // Otherwise fields that nobody changes would be lost when an old secret is removed.
      if (codecs.length > 1) await rewrite(options, fields, session);
      return session;
    },

    async patch(change) {
      let result: PatchResult = 'conflict';
      // While secrets change, the fields that `expect` names may lie in any codec.
      for (const codec of change.expect ? codecs : [codecs[0]]) {
        if (result === 'conflict') result = await store.patch(key, toRecord(change, expiry, codecs, codec), call);
      }
      return result;
    },

    async destroy() {
      const held = await store.destroy(key, TOMBSTONE_MS, call);
      return held instanceof Map ? toSession(held, codecs, onCorrupt) : held;
    },
  };
}

/** Writes the fields of older codecs again with the first codec. `session` was read from `fields`. */
async function rewrite(
  { store, call, key, codecs, expiry }: RecordOptions,
  fields: Fields,
  session: SessionFields,
): Promise<void> {
  const set: Fields = new Map();
  const expect: Fields = new Map();
  for (const [name, value] of fields) {
    for (const codec of codecs.slice(1)) {
      const [sessionKey] = codec.read(name, value) ?? [];
      if (sessionKey === undefined) continue;
      set.set(sessionKey, session.get(sessionKey)!);
      expect.set(name, value);
    }
  }
  if (set.size === 0) return;
  const change = { ...toRecord({ set, mustExist: true }, expiry, codecs), expect };
  // A writer that changes a field meanwhile uses the first codec. The read succeeds even when this fails: the next read tries again.
  await store.patch(key, change, call).catch(() => undefined);
}
