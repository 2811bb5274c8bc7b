import { loadDevalue } from '../codec/flat.ts';
import { report } from '../contract/diagnostics.ts';
import type { SessionDriver } from '../contract/driver.ts';
import { notLoaded } from '../contract/errors.ts';
import { type Engine, destroyAgain } from '../engine/engine.ts';
import type { FinalContents } from '../engine/record.ts';
import { mayRestore } from '../engine/may-restore.ts';
import { withDeadline } from '../engine/timeout.ts';
import { thisMoment } from '../platform/clock.ts';
import { keepLatest } from '../platform/keep-latest.ts';
import { waitUntil } from '../platform/wait-until.ts';
import {
  afterRegenerate,
  diff,
  encodeAll,
  type MarkResolver,
  payloadOf,
  resultOf,
  savedSession,
  type Snapshot,
  unite,
} from './changes.ts';
import { createLayoutCache } from './layout.ts';
import { createRemovals, type Removal } from './removals.ts';
import { currentRequest, respondOnFailure } from './request.ts';
import type { UnidentifiedReads } from './unidentified.ts';

/** The number of read results that are kept for one request, such as one that streams events and reads the session for each. */
const MAX_RESULTS = 100;

/**
 * Creates the three methods that Astro calls, on an engine.
 *
 * Astro saves whole sessions and does not pass the request. The driver finds out what a request changed by the marks on the entries that it
 * returned to the request (`changes.ts`). If no mark is left, it uses the snapshot that it remembers for the request.
 */
export function astroDriver(engine: Engine): SessionDriver {
  const { driver } = engine;
  // A driver ignores the marks of other drivers: a session that was read with another driver is saved completely.
  let nonce: string | undefined;
  // Created on demand, because a Worker cannot create random values before its first request.
  const ownNonce = (): string => (nonce ??= crypto.randomUUID());
  const removals = createRemovals();
  const layouts = createLayoutCache();
  let reads = 0;

  /** The key of a session in a `RequestMemory`. It contains the nonce, because all drivers share these memories. */
  const memoryKey = (id: string): string => `${ownNonce()}:${id}`;

  const onCorrupt = (): void => report('corrupt-field', driver);

  /**
   * The snapshot of a session for this request: the one in the marks. If no mark is left, the one of all reads of this request; without
   * identity, that of the last read.
   */
  const snapshotOf = (id: string, marked: Snapshot | undefined): Snapshot | undefined => {
    const request = currentRequest();
    return marked ?? (request ? request.reads.get(memoryKey(id)) : unidentified?.lastOf(id));
  };

  // Loaded at the first read without identity. Node's servers give every request one.
  let unidentified: UnidentifiedReads | undefined;

  const marks: MarkResolver = {
    find(mark, flat) {
      if (Array.isArray(mark)) return unidentified?.resultIn(flat, mark);
      return typeof mark === 'string' && mark.startsWith(ownNonce()) ? currentRequest()?.results.get(mark) : undefined;
    },
    onUnknown: () => report('unknown-read', driver),
  };

  const withinTimeout = <Result>(work: Promise<Result>): Promise<Result> => withDeadline(engine.timeoutMs, () => work);

  /** Waits for a module, but not longer than for an operation. */
  const loaded = <Module>(loading: Promise<Module>): Promise<Module> =>
    withinTimeout(loading).catch((error: unknown) => {
      throw notLoaded(driver, error);
    });

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
    const loading = loadDevalue();
    if (loading) await loaded(loading);
    const own = [...(request?.removals.values() ?? [])];
    const { entries, snapshots } = savedSession(driver, payload, marks);
    const previous = snapshots.find((snapshot) => snapshot.id !== id);
    if (previous) request?.removals.get(memoryKey(previous.id))?.markRegenerated();
    // Wait for pending removals, but only for `timeout`: in a Worker, a removal never settles when the request that started it is canceled.
    // Wait for all of them concurrently, so that the whole wait takes `timeout` at most.
    const related = [id, ...(previous ? [previous.id] : [])].flatMap((each) => removals.of(each));
    const pending = [...own.map((removal) => removal.contents), ...related.map((removal) => removal.succeeded)];
    if (pending.length > 0)
      await Promise.all(pending.map((removal) => withinTimeout<unknown>(removal).catch(() => undefined)));
    const oldContents = previous ? await contentsOfOld(previous.id) : null;

    if (previous) {
      const snapshot = snapshotOf(previous.id, previous)!;
      const contents = oldContents ?? (mayRestore(snapshot.at, engine.timeoutMs) ? 'lost' : 'stale');
      if (contents === 'destroyed' || contents === 'stale') report(`${contents}-write`, driver);
      await engine.patch(id, afterRegenerate(entries, snapshot, contents));
      return;
    }

    const snapshot = snapshotOf(
      id,
      snapshots.find((each) => each.id === id),
    );
    // The same request may open the session again, as Astro does for an error page. What this page has read does not count there.
    request?.reads.delete(memoryKey(id));
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
    const restored = await engine.patch(id, { set: changed.set, ifAbsent, created: null });
    if (restored === 'destroyed') report('destroyed-write', driver);
  };

  return {
    async getItem(id) {
      const request = currentRequest();
      const name = memoryKey(id);
      // Components that render concurrently can read a session more than once. Astro merges what they read, so they share one read, unless the
      // request has written in between.
      let reading = request?.reading.get(name);
      if (!reading) {
        reading = { at: thisMoment(), fields: engine.read(id) };
        request?.reading.set(name, reading);
        const forget = (): unknown => request?.reading.get(name) === reading && request?.reading.delete(name);
        reading.fields.then(forget, forget);
      }
      const { at } = reading;
      const fields = await respondOnFailure(reading.fields);
      if (!fields) {
        // A request keeps what it has read before: the session has been destroyed since.
        if (!request) unidentified?.forget(id);
        return null;
      }
      const layout = layouts.layoutOf(id, fields, Date.now(), onCorrupt);
      const result = resultOf(driver, id, at, layout);
      if (!request) {
        if (!unidentified) {
          const { createUnidentifiedReads } = await loaded(import('./unidentified.ts'));
          unidentified ??= createUnidentifiedReads(driver, ownNonce());
        }
        return unidentified.payloadOf(layout, result);
      }
      request.reads.set(name, unite(request.reads.get(name), result));
      const mark = `${ownNonce()}${++reads}`;
      keepLatest(request.results, mark, result, MAX_RESULTS);
      return payloadOf(layout, mark);
    },

    setItem: (id, payload) => waitUntil(respondOnFailure(save(id, payload))),

    removeItem(id) {
      const request = currentRequest();
      const contents = engine.destroy(id);
      const removal = removals.add(id, contents, request);
      layouts.forget(id);
      request?.reading.delete(memoryKey(id));
      request?.removals.set(memoryKey(id), removal);
      return contents.then(() => undefined);
    },
  };
}
