import type { SessionFields } from '../codec/field-codec.ts';
import type { Fields } from '../contract/store.ts';
import { type RecordOptions, toRecord } from './record.ts';

/** Encodes the fields of older codecs again with the first codec. `session` is the decoded form of `fields`. */
export async function rewrite(
  { store, call, key, codecs, expiry }: RecordOptions,
  fields: Fields,
  session: SessionFields,
): Promise<void> {
  const older = codecs.slice(1);
  const set: Fields = new Map();
  const expect: Fields = new Map();
  for (const [name, value] of fields) {
    for (const codec of older) {
      const [sessionKey] = codec.read(name, value) ?? [];
      if (sessionKey === undefined) continue;
      set.set(sessionKey, session.get(sessionKey)!);
      expect.set(name, value);
    }
  }
  if (set.size === 0) return;
  const change = { ...toRecord({ set, mustExist: true }, expiry, codecs), expect };
  // A conflict can be ignored: a concurrent writer of a field uses the first codec as well. An error is ignored, too, because the read
  // itself has succeeded; the next read tries again.
  await store.patch(key, change, call).catch(() => undefined);
}
