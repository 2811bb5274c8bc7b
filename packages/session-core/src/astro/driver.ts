import type { SessionFields } from '../codec/field-codec.ts';
import { expiryOf, isExpired } from '../codec/field.ts';
import { type Entry, type Snapshot, encodePayload, decodePayload, unite } from '../codec/payload.ts';
import { report } from '../contract/diagnostics.ts';
import type { SessionDriver } from '../contract/driver.ts';
import type { Fields } from '../contract/store.ts';
import { type Engine, destroyAgain } from '../engine/engine.ts';
import type { FinalContents } from '../engine/record.ts';
import { mayRestore } from '../engine/may-restore.ts';
import { withDeadline } from '../engine/timeout.ts';
import { thisMoment } from '../platform/clock.ts';
import { waitUntil } from '../platform/wait-until.ts';
import { createRemovals, type Removal } from './removals.ts';

import { currentRequest, respondOnFailure, type Reading } from './request.ts';

/** The number of snapshots that are kept for requests without identity. */
const MAX_LAST_READS = 10_000;

/**
 * Creates the three methods that Astro calls, on an engine.
 *
 * Astro saves whole sessions and does not pass the request. The driver finds out what a request changed by the marks on the entries that it
 * returned to the request (`codec/payload.ts`). If no mark is left, it uses the snapshot that it remembers for the request.
 */
export function astroDriver(engine: Engine): SessionDriver {
  const { driver } = engine;
  // A driver ignores the marks of other drivers: a session that was read with another driver is saved completely.
  let nonce: string | undefined;
  // Created on demand, because a Worker cannot create random values before its first request.
  const ownNonce = (): string => (nonce ??= crypto.randomUUID());
  const lastReads = new Map<string, Snapshot>();
  const removals = createRemovals();

  /** The key of a session in a `RequestMemory`. It contains the nonce, because all drivers share these memories. */
  const memoryKey = (id: string): string => `${ownNonce()}:${id}`;

  const onCorrupt = (): void => report('corrupt-field', driver);

  // Components that render concurrently can read a session more than once. Astro merges what they read, so they share one read, unless the
  // request has written in between.
  const read = (id: string): Reading => {
    const request = currentRequest();
    const name = memoryKey(id);
    const shared = request?.reading.get(name);
    if (shared) return shared;
    const reading: Reading = { at: thisMoment(), fields: engine.read(id) };
    if (request) {
      const forget = (): boolean => request.reading.get(name) === reading && request.reading.delete(name);
      reading.fields.then(forget, forget);
      request.reading.set(name, reading);
    }
    return reading;
  };

  const remember = (id: string, snapshot: Snapshot | undefined): void => {
    const request = currentRequest();
    if (request && snapshot) request.reads.set(memoryKey(id), unite(request.reads.get(memoryKey(id)), snapshot));
    else if (request) request.reads.delete(memoryKey(id));
    else if (snapshot) keepLatest(lastReads, id, snapshot);
    else lastReads.delete(id);
  };

  /** The snapshot of a session for this request. For a request without identity: the one in the marks, or else that of the last read. */
  const snapshotOf = (id: string, marked: Snapshot | undefined): Snapshot | undefined => {
    const request = currentRequest();
    if (!request) return marked ?? lastReads.get(id);
    const remembered = request.reads.get(memoryKey(id));
    return marked && remembered ? unite(marked, remembered) : (marked ?? remembered);
  };

  const withinTimeout = <Result>(work: Promise<Result>): Promise<Result> => withDeadline(engine.timeoutMs, () => work);

  /**
   * The contents that a regenerated session may take from its old id. Astro does not wait for the removal of the old id and ignores its
   * failure. This function does wait, and repeats a failed removal, so that the old id is destroyed before anything is stored under the new
   * one.
   */
  const contentsOfOld = async (id: string): Promise<FinalContents> => {
    const own = currentRequest()?.removals.get(memoryKey(id));
    const otherRemovals = (): Removal[] => removals.of(id).filter((other) => other.regenerated !== own?.regenerated);
    const removal = own?.contents ?? removals.take(id);
    if (!removal) return null;
    let contents: FinalContents;
    try {
      contents = await withinTimeout(removal);
    } catch (error) {
      const succeeded = await withinTimeout(Promise.all(otherRemovals().map((other) => other.succeeded))).catch(
        (): boolean[] => [],
      );
      contents = succeeded.includes(true) ? 'destroyed' : await destroyAgain(engine, id, error);
    }
    if (!own || contents === null || contents === 'destroyed') return contents;
    // This request was the first to remove the session, so it has the contents. Other requests that removed it later have either
    // regenerated it or signed out. After a sign-out, this request must not use the contents. New removals may start during the wait, so
    // look again after it.
    for (let others = otherRemovals(), checked = -1; others.length > checked; others = otherRemovals()) {
      checked = others.length;
      const regenerated = await withinTimeout(Promise.all(others.map((other) => other.regenerated))).catch(() => [
        false,
      ]);
      if (regenerated.includes(false)) return 'destroyed';
    }
    return contents;
  };

  const save = async (id: string, payload: unknown): Promise<void> => {
    const request = currentRequest();
    request?.reading.delete(memoryKey(id));
    const own = [...(request?.removals.values() ?? [])];
    const { entries, snapshots: marks } = decodePayload(driver, payload, ownNonce());
    const previous = marks.find((mark) => mark.id !== id);
    if (previous) request?.removals.get(memoryKey(previous.id))?.markRegenerated();
    // Wait for pending removals, but only for `timeout`: in a Worker, a removal never settles when the request that started it is canceled.
    // Wait for all of them concurrently, so that the whole wait takes `timeout` at most.
    const related = [id, ...(previous ? [previous.id] : [])].flatMap((each) => removals.of(each));
    const pending = [...own.map((removal) => removal.contents), ...related.map((removal) => removal.succeeded)];
    await Promise.all(pending.map((removal) => withinTimeout<unknown>(removal).catch(() => undefined)));
    const oldContents = previous ? await contentsOfOld(previous.id) : null;

    if (previous) {
      const snapshot = snapshotOf(previous.id, previous)!;
      const contents = oldContents ?? (mayRestore(snapshot.at, engine.timeoutMs) ? 'lost' : 'stale');
      if (contents === 'destroyed' || contents === 'stale') report(`${contents}-write`, driver);
      await engine.patch(id, { set: afterRegenerate(entries, snapshot, contents) });
      return;
    }

    const snapshot = snapshotOf(
      id,
      marks.find((mark) => mark.id === id),
    );
    const changed = diff(entries, snapshot);
    if (snapshot && changed.set.size + changed.unset.length + changed.purge.length === 0) return;
    const result = await engine.patch(id, { ...changed, mustExist: snapshot !== undefined });
    if (result === 'destroyed') report('destroyed-write', driver);
    if (result !== 'missing' || !snapshot) return;

    // The record is missing: the backend lost it, or the session expired, or it was destroyed so long ago that the tombstone has ended.
    // Only a recent read rules out the last case.
    if (!mayRestore(snapshot.at, engine.timeoutMs)) {
      report('stale-write', driver);
      return;
    }
    const ifAbsent = encodeAll(entries, (entry) => !entry.modified);
    if (changed.set.size + ifAbsent.size === 0) return;
    const restored = await engine.patch(id, { set: changed.set, ifAbsent });
    if (restored === 'destroyed') report('destroyed-write', driver);
  };

  return {
    async getItem(id) {
      const { at, fields: reading } = read(id);
      const fields = await respondOnFailure(reading);
      if (!fields) {
        remember(id, undefined);
        return null;
      }
      const snapshot: Snapshot = { id, at, keys: new Map() };
      const payload = encodePayload(fields, Date.now(), onCorrupt, { nonce: ownNonce(), snapshot });
      remember(id, snapshot);
      return payload;
    },

    setItem: (id, payload) => waitUntil(respondOnFailure(save(id, payload))),

    removeItem(id) {
      const request = currentRequest();
      const contents = engine.destroy(id);
      const removal = removals.add(id, contents, request);
      request?.reading.delete(memoryKey(id));
      request?.removals.set(memoryKey(id), removal);
      return contents.then(() => undefined);
    },
  };
}

/** The changes that a request made to the session that it had read. Without a snapshot, all modified entries count as new. */
function diff(entries: Map<string, Entry>, snapshot: Snapshot | undefined) {
  const now = Date.now();
  const unset: string[] = [];
  const purge: string[] = [];
  for (const [key, expires] of snapshot?.keys ?? []) {
    if (entries.has(key)) continue;
    // Astro leaves out an expired entry. Another request may have renewed it, so remove it only if the stored entry has expired as well.
    if (isExpired(expires, now)) purge.push(key);
    else unset.push(key);
  }
  const untouched = [...entries.values()].filter((entry) => !entry.modified).map((entry) => entry.expires);
  return { set: encodeAll(entries, (entry) => entry.modified), unset, purge, untouched };
}

/**
 * The fields of a session under its new id.
 *
 * @param contents the last contents of the old record. Keys that this request did not change are taken from here, so concurrent changes are
 *   not lost. `destroyed` or `stale`: only the keys that this request set are kept, because the session was destroyed or may have been.
 *   `lost`: the backend lost the record, so all keys that this request knows are kept.
 */
function afterRegenerate(
  entries: Map<string, Entry>,
  snapshot: Snapshot,
  contents: SessionFields | 'lost' | 'destroyed' | 'stale',
): Fields {
  const now = Date.now();
  const set = encodeAll(entries, (entry) => entry.modified || contents === 'lost');
  if (typeof contents === 'string') return set;
  for (const [key, field] of contents) {
    const deleted = snapshot.keys.has(key) && !entries.has(key) && !isExpired(snapshot.keys.get(key), now);
    if (!set.has(key) && !deleted && !isExpired(expiryOf(field), now)) set.set(key, field);
  }
  return set;
}

function encodeAll(entries: Map<string, Entry>, which: (entry: Entry) => boolean): Fields {
  const fields: Fields = new Map();
  for (const [key, entry] of entries) if (which(entry)) fields.set(key, entry.encoded());
  return fields;
}

function keepLatest<Value>(map: Map<string, Value>, key: string, value: Value): void {
  map.delete(key);
  map.set(key, value);
  if (map.size > MAX_LAST_READS) map.delete(map.keys().next().value!);
}
