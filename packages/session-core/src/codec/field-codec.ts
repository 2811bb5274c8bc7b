import type { Fields } from '../contract/store.ts';

import { expiryOf, fieldName, isExpired, keyOfField } from './field.ts';

/** The fields of a session by session key, such as a Map of them. Shared between readers: not to be changed. */
export interface SessionFields extends Iterable<[key: string, field: string]> {
  get(key: string): string | undefined;
  /** The expiries of all fields but those of these keys, where that takes less than going through the fields. */
  expiries?(except: ReadonlySet<string>): (number | undefined)[];
  /** What lies in the record under a key that cannot be opened, by its name there; nothing where there is no such thing. */
  unopened?(key: string): ReadonlyMap<string, string>;
}

/** How the fields of a session lie in one record. */
export interface FieldCodec {
  /** Under which name a session key lies. */
  name(key: string): string;
  /** What lies there, for an encoded field. The same field is always the same text. */
  value(key: string, field: string): string;
  /** The session key and the encoded field; undefined when they lie there in another form, or are corrupt. */
  read(name: string, value: string): [key: string, field: string] | undefined;
}

/** What the names of encrypted fields begin with. */
export const ENCRYPTED = '~';

/** Plaintext: names and values as they are. */
export const plaintext: FieldCodec = {
  name: fieldName,
  value: (_key, field) => field,
  read(name, value) {
    const key = name.startsWith(ENCRYPTED) ? undefined : keyOfField(name);
    return key === undefined ? undefined : [key, value];
  },
};

/** The forms in which fields of a record may lie. The first is the one that is written. */
export type FieldCodecs = readonly [FieldCodec, ...FieldCodec[]];

/**
 * The session in a record. A field that is encrypted is opened when somebody asks for it, or for all. What is in none of the forms is left
 * out, and told to `onCorrupt` at that time.
 */
export function toSession(fields: Fields, codecs: FieldCodecs, onCorrupt: () => void): SessionFields {
  if (codecs.length === 1 && codecs[0] === plaintext && ![...fields.keys()].some((name) => /^["~]/.test(name)))
    return fields;
  const known = new Map<string, string | undefined>();
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
  const open = (key: string): string | undefined => {
    for (const [codec, name, value] of stored(key)) {
      const entry = codec.read(name, value);
      if (entry) return entry[1];
      report(name);
    }
    return undefined;
  };
  const openAll = (): Fields => {
    const session: Fields = new Map();
    const unread = new Set(fields.keys());
    // What lies in the first form was written last, whatever the others still hold.
    for (const codec of codecs.toReversed()) {
      for (const [name, value] of fields) {
        const entry = codec.read(name, value);
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
      new Map(stored(key).flatMap(([codec, name, value]) => (codec.read(name, value) ? [] : [[name, value]]))),
    expiries(except) {
      const names = new Set([...except].flatMap((key) => codecs.map((codec) => codec.name(key))));
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
export function unexpired(fields: SessionFields): Fields {
  const now = Date.now();
  return new Map([...fields].filter(([, field]) => !isExpired(expiryOf(field), now)));
}
