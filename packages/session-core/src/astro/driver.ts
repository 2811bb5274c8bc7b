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

/** How many reads are remembered where no request can be told from another. */
const READS_REMEMBERED = 10_000;

/**
 * The three methods that Astro calls, on an engine. Astro hands over whole sessions and tells nothing of the request; what a request
 * changed is found out by marks on the entries that it was handed (`codec/payload.ts`), and where no mark survived, by what the request is
 * remembered to have read.
 */
export function astroDriver(engine: Engine): SessionDriver {
  const { driver } = engine;
  // Marks count only where they were made: a payload that was carried elsewhere and back is written whole.
  let nonce: string | undefined;
  // A Worker has no random values before its first request.
  const ownNonce = (): string => (nonce ??= crypto.randomUUID());
  const lastReads = new Map<string, Snapshot>();
  const removals = createRemovals();

  /** The name of a session in what is remembered of a request, which drivers share. */
  const nameOf = (id: string): string => `${ownNonce()}:${id}`;

  const onCorrupt = (): void => report('corrupt-field', driver);

  // Parts of a page that are rendered side by side read while another's read is under way. Astro merges what they are handed, so they
  // are handed the same, unless the request has written in between.
  const read = (id: string): Reading => {
    const request = currentRequest();
    const name = nameOf(id);
    const shared = request?.reading.get(name);
    if (shared) return shared;
    const reading: Reading = { at: thisMoment(), fields: engine.read(id) };
    if (request) {
      const isOver = (): boolean => request.reading.get(name) === reading && request.reading.delete(name);
      reading.fields.then(isOver, isOver);
      request.reading.set(name, reading);
    }
    return reading;
  };

  const remember = (id: string, snapshot: Snapshot | undefined): void => {
    const request = currentRequest();
    if (request && snapshot) request.reads.set(nameOf(id), unite(request.reads.get(nameOf(id)), snapshot));
    else if (request) request.reads.delete(nameOf(id));
    else if (snapshot) keepLatest(lastReads, id, snapshot);
    else lastReads.delete(id);
  };

  /** What this request was handed of a session; without identity, what was handed out last, unless marks tell. */
  const snapshotOf = (id: string, marked: Snapshot | undefined): Snapshot | undefined => {
    const request = currentRequest();
    if (!request) return marked ?? lastReads.get(id);
    const remembered = request.reads.get(nameOf(id));
    return marked && remembered ? unite(marked, remembered) : (marked ?? remembered);
  };

  const within = <Result>(work: Promise<Result>): Promise<Result> => withDeadline(engine.timeoutMs, () => work);

  // Astro does not wait for the removal, and overlooks its failure: the old id must be worthless before anything is stored under the new
  // one.
  const heldBy = async (id: string): Promise<FinalContents> => {
    const own = currentRequest()?.removals.get(nameOf(id));
    const othersOf = (): Removal[] => removals.of(id).filter((other) => other.moved !== own?.moved);
    const removal = own?.held ?? removals.take(id);
    if (!removal) return null;
    let held: FinalContents;
    try {
      held = await within(removal);
    } catch (error) {
      const over = await within(Promise.all(othersOf().map((other) => other.over))).catch((): boolean[] => []);
      held = over.includes(true) ? 'destroyed' : await destroyAgain(engine, id, error);
    }
    if (!own || held === null || held === 'destroyed') return held;
    // This request was the first to remove the session. Others that have done so since have regenerated it as well, or somebody has signed
    // out: then this request must not take it along. More may come while it waits.
    for (let others = othersOf(), known = -1; others.length > known; others = othersOf()) {
      known = others.length;
      const moved = await within(Promise.all(others.map((other) => other.moved))).catch(() => [false]);
      if (moved.includes(false)) return 'destroyed';
    }
    return held;
  };

  const save = async (id: string, payload: unknown): Promise<void> => {
    const request = currentRequest();
    request?.reading.delete(nameOf(id));
    const own = [...(request?.removals.values() ?? [])];
    const { entries, snapshots: marks } = decodePayload(driver, payload, ownNonce());
    const previous = marks.find((mark) => mark.id !== id);
    if (previous) request?.removals.get(nameOf(previous.id))?.onMoved();
    // A removal never ends where the request that began it was cancelled, as Workers' requests are: it is not waited for longer than it
    // can take. Side by side: where none of them ends, each would wait for as long as it may.
    const named = [id, ...(previous ? [previous.id] : [])].flatMap((name) => removals.of(name));
    const isOver = [...own.map((removal) => removal.held), ...named.map((removal) => removal.over)];
    await Promise.all(isOver.map((over) => within<unknown>(over).catch(() => undefined)));
    const lastHeld = previous ? await heldBy(previous.id) : null;

    if (previous) {
      const snapshot = snapshotOf(previous.id, previous)!;
      const held = lastHeld ?? (mayRestore(snapshot.at, engine.timeoutMs) ? 'lost' : 'stale');
      if (held === 'destroyed' || held === 'stale') report(`${held}-write`, driver);
      await engine.patch(id, { set: afterRegenerate(entries, snapshot, held) });
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

    // The backend lost the record, or the session expired or was removed long ago. Only a recent read proves that it was the former.
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
      const flat = encodePayload(fields, Date.now(), onCorrupt, { nonce: ownNonce(), snapshot });
      remember(id, snapshot);
      return flat;
    },

    setItem: (id, payload) => waitUntil(respondOnFailure(save(id, payload))),

    removeItem(id) {
      const request = currentRequest();
      const held = engine.destroy(id);
      const removal = removals.add(id, held, request);
      request?.reading.delete(nameOf(id));
      request?.removals.set(nameOf(id), removal);
      return held.then(() => undefined);
    },
  };
}

/** What a request did to the session that it was handed. */
function diff(entries: Map<string, Entry>, snapshot: Snapshot | undefined) {
  const now = Date.now();
  const unset: string[] = [];
  const purge: string[] = [];
  for (const [key, expires] of snapshot?.keys ?? []) {
    if (entries.has(key)) continue;
    // Astro leaves out what has expired; another request may have renewed it.
    if (isExpired(expires, now)) purge.push(key);
    else unset.push(key);
  }
  const untouched = [...entries.values()].filter((entry) => !entry.modified).map((entry) => entry.expires);
  return { set: encodeAll(entries, (entry) => entry.modified), unset, purge, untouched };
}

/**
 * The session under its new id. What the request did not touch is taken from what the old record held when it was removed, so that a
 * change which landed in between is not lost. Where another request had removed the old one, only what this request set itself is
 * kept: everything else is gone because someone wanted it gone.
 */
function afterRegenerate(
  entries: Map<string, Entry>,
  snapshot: Snapshot,
  held: SessionFields | 'lost' | 'destroyed' | 'stale',
): Fields {
  const now = Date.now();
  const set = encodeAll(entries, (entry) => entry.modified || held === 'lost');
  if (typeof held === 'string') return set;
  for (const [key, field] of held) {
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
  if (map.size > READS_REMEMBERED) map.delete(map.keys().next().value!);
}
