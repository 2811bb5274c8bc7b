import type { Fields } from '../contract/store.ts';

import { CREATED_FIELD, CREATED_KEY, expiryOf, fieldName, isExpired, keyOfField } from './field.ts';

/** The fields of a session by session key, such as a Map. Readers share one instance, so nobody may modify it. */
export interface SessionFields extends Iterable<[key: string, field: string]> {
  /** The field that says when the session was created (see `CREATED_KEY`); undefined when it is unknown. */
  readonly created?: string | undefined;
  /** The encoded field; undefined when there is none, or when it is corrupt. */
  get(key: string): string | undefined;
  /**
   * The expiries of all fields except those of the given keys. Implemented only where this is cheaper than iterating over the fields, which
   * may have to be decrypted.
   */
  expiries?(except: ReadonlySet<string>): (number | undefined)[];
  /** The stored fields of a session key that no codec can decode, by their names in the record. Empty when there are none. */
  unopened?(key: string): ReadonlyMap<string, string>;
}

/** Encodes and decodes the fields of a session in one record. */
export interface FieldCodec {
  /** The name in the record for a session key. */
  name(key: string): string;
  /** The value in the record for an encoded field. The same field always gives the same string. */
  value(key: string, field: string): string;
  /** The session key and the encoded field; undefined when another codec wrote them, or when they are corrupt. */
  read(name: string, value: string): [key: string, field: string] | undefined;
}

/** The first character of the name of every encrypted field. */
export const ENCRYPTED = '~';

/** The codec for plaintext: it stores values unchanged. */
export const plaintext: FieldCodec = {
  name: fieldName,
  value: (_key, field) => field,
  read(name, value) {
    const key = name.startsWith(ENCRYPTED) ? undefined : keyOfField(name);
    return key === undefined ? undefined : [key, value];
  },
};

/** The codecs that may have written the fields of a record. The first one writes; all of them read. */
export type FieldCodecs = readonly [FieldCodec, ...FieldCodec[]];

/**
 * The session that a record contains. An encrypted field is decrypted only when it is read. A field that no codec can decode is left out,
 * and `onCorrupt` is called once for it when it is first read.
 */
export function toSession(fields: Fields, codecs: FieldCodecs, onCorrupt: () => void): SessionFields {
  if (codecs.length === 1 && codecs[0] === plaintext && isPlain(fields)) return withoutCreated(fields);
  const decoded = new Map<string, string | undefined>();
  const corrupt = new Set<string>();
  let all: Fields | undefined;

  const report = (name: string): void => {
    if (corrupt.has(name)) return;
    corrupt.add(name);
    onCorrupt();
  };
  const stored = (key: string): [codec: FieldCodec, name: string, value: string][] =>
    codecs.flatMap((codec) => {
      const name = codec.name(key);
      const value = fields.get(name);
      return value === undefined ? [] : [[codec, name, value]];
    });
  const decode = (key: string): string | undefined => {
    for (const [codec, name, value] of stored(key)) {
      const entry = codec.read(name, value);
      if (entry) return entry[1];
      report(name);
    }
    return undefined;
  };
  const decodeAll = (): Fields => {
    const session: Fields = new Map();
    const undecoded = new Set(fields.keys());
    // The first codec goes last and wins: its field is newer than those of the other codecs.
    for (const codec of codecs.toReversed()) {
      for (const [name, value] of fields) {
        const entry = codec.read(name, value);
        if (!entry) continue;
        session.set(...entry);
        undecoded.delete(name);
      }
    }
    undecoded.forEach(report);
    session.delete(CREATED_KEY);
    return session;
  };

  const session: SessionFields = {
    get created() {
      return session.get(CREATED_KEY);
    },
    get(key) {
      if (all && key !== CREATED_KEY) return all.get(key);
      if (!decoded.has(key)) decoded.set(key, decode(key));
      return decoded.get(key);
    },
    [Symbol.iterator]: () => (all ??= decodeAll())[Symbol.iterator](),
    unopened: (key) =>
      new Map(stored(key).flatMap(([codec, name, value]) => (codec.read(name, value) ? [] : [[name, value]]))),
    expiries(except) {
      const names = new Set([...except, CREATED_KEY].flatMap((key) => codecs.map((codec) => codec.name(key))));
      return [...fields].filter(([name]) => !names.has(name)).map(([, value]) => expiryOf(value));
    },
  };
  return session;
}

/** Whether the name of every field is its session key, except that of the creation. */
function isPlain(fields: Fields): boolean {
  for (const name of fields.keys()) {
    if ((name.startsWith('"') || name.startsWith(ENCRYPTED)) && name !== CREATED_FIELD) return false;
  }
  return true;
}

/** The same map, with the creation as a property instead of a field. */
function withoutCreated(fields: Fields): SessionFields {
  const created = fields.get(CREATED_FIELD);
  return fields.delete(CREATED_FIELD) ? Object.assign(fields, { created }) : fields;
}

/** A copy of the session with one field changed, or removed when `field` is null. */
export function withField(session: SessionFields, key: string, field: string | null): SessionFields {
  const { base, changes: earlier }: Partial<ChangedSession> = session as Partial<ChangedSession>;
  const changes = new Map(earlier).set(key, field);
  return changedSession(base ?? session, changes);
}

interface ChangedSession extends SessionFields {
  base: SessionFields;
  changes: ReadonlyMap<string, string | null>;
}

function changedSession(base: SessionFields, changes: ReadonlyMap<string, string | null>): ChangedSession {
  const written = (): [string, string][] =>
    [...changes].filter((entry): entry is [string, string] => entry[1] !== null);
  return {
    base,
    changes,
    get created() {
      return base.created;
    },
    get: (key) => (changes.has(key) ? (changes.get(key) ?? undefined) : base.get(key)),
    unopened: (key) => (changes.has(key) ? new Map() : (base.unopened?.(key) ?? new Map())),
    *[Symbol.iterator]() {
      for (const [key, field] of base) {
        const now = changes.has(key) ? changes.get(key) : field;
        if (typeof now === 'string') yield [key, now];
      }
      for (const [key, field] of written()) if (base.get(key) === undefined) yield [key, field];
    },
    expiries: (except) => [
      ...expiriesExcept(base, new Set([...except, ...changes.keys()])),
      ...written()
        .filter(([key]) => !except.has(key))
        .map(([, field]) => expiryOf(field)),
    ],
  };
}

/** The expiries of all fields except those of the given keys. */
export function expiriesExcept(session: SessionFields, except: ReadonlySet<string>): (number | undefined)[] {
  if (session.expiries) return session.expiries(except);
  return [...session].filter(([key]) => !except.has(key)).map(([, field]) => expiryOf(field));
}

/** The fields that have not expired. */
export function unexpired(fields: SessionFields): Fields {
  const now = Date.now();
  return new Map([...fields].filter(([, field]) => !isExpired(expiryOf(field), now)));
}
