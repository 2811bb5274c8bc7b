import type { SessionFields } from './at-rest.ts';
import { RETIRE_MS, type Engine, type Held } from './engine.ts';
import { expiryOf, isExpired } from './fields.ts';
import { withDeadline } from './guard.ts';
import { keepAlive } from './keep-alive.ts';
import { join, split, type Entry, type Handed } from './payload.ts';
import { report } from './report.ts';
import { currentRequest, orAnswer, type Reading, type RequestMemory } from './requests.ts';
import type { Fields } from './store.ts';
import type { SessionDriver } from './types.ts';

/** How many reads and removals are remembered where no request can be told from another. */
const REMEMBERED = 10_000;

/**
 * The three methods that Astro calls, on an engine. Astro hands over whole sessions and tells nothing of the request; what a request
 * changed is found out by marks on the entries that it was handed (`payload.ts`), and where no mark survived, by what the request is
 * remembered to have read.
 */
export function astroFace(engine: Engine): SessionDriver {
  const { driver } = engine;
  // Marks count only where they were made: a payload that was carried elsewhere and back is written whole.
  let nonce: string | undefined;
  // A Worker has no random values before its first request.
  const ownNonce = (): string => (nonce ??= crypto.randomUUID());
  const lastReads = new Map<string, Handed>();
  const removals = new Map<string, Removal>();
  const underway = new Set<Promise<Held>>();

  /** The name of a session in what is remembered of a request, which drivers share. */
  const nameOf = (id: string): string => `${ownNonce()}:${id}`;

  const onDamaged = (): void => report('damaged-field', driver);

  // Parts of a page that are rendered side by side read while another's read is under way. Astro merges what they are handed, so they
  // are handed the same, unless the request has written in between.
  const read = (id: string): Reading => {
    const request = currentRequest();
    const name = nameOf(id);
    const shared = request?.reading.get(name);
    if (shared) return shared;
    const reading: Reading = { at: Date.now(), fields: engine.read(id) };
    if (request) {
      const isOver = (): boolean => request.reading.get(name) === reading && request.reading.delete(name);
      reading.fields.then(isOver, isOver);
      request.reading.set(name, reading);
    }
    return reading;
  };

  const remember = (id: string, handed: Handed | undefined): void => {
    const request = currentRequest();
    const [reads, name] = request ? [request.reads, nameOf(id)] : [lastReads, id];
    if (handed) keepLatest(reads, name, handed);
    else reads.delete(name);
  };

  const lastHanded = (id: string): Handed | undefined => {
    const request = currentRequest();
    return request ? request.reads.get(nameOf(id)) : lastReads.get(id);
  };

  // A removal never ends where the request that began it was cancelled, as Workers' requests are: it is not waited for longer than it can
  // take.
  const endOf = async (removal: Promise<Held> | undefined): Promise<Held> => {
    if (!removal) return null;
    return withDeadline(engine.timeoutMs, () => removal).catch(() => {
      underway.delete(removal);
      return null;
    });
  };

  // Astro does not wait for the removal, and overlooks its failure: the old id must be worthless before anything is stored under the new
  // one. A removal without an answer may have been carried out, and then left a tombstone in which the session is not to be found.
  const heldBy = async (id: string, request: RequestMemory | undefined): Promise<Held> => {
    const removal = removals.get(id)?.done ?? request?.removals.get(nameOf(id));
    if (!removal) return null;
    try {
      return await withDeadline(engine.timeoutMs, () => removal);
    } catch {
      const held = await engine.retire(id);
      return held === 'retired' ? null : held;
    }
  };

  const save = async (id: string, payload: unknown): Promise<void> => {
    const request = currentRequest();
    request?.reading.delete(nameOf(id));
    const { entries, handed: marked } = split(driver, payload, ownNonce());
    const others = [...(request?.removals.values() ?? underway), removals.get(id)?.done].map(endOf);
    // Side by side: where a removal never ends, each of them waits for as long as it may.
    const [lastHeld] = await Promise.all([marked && marked.id !== id ? heldBy(marked.id, request) : null, ...others]);

    if (marked && marked.id !== id) {
      const held = lastHeld ?? (isYoung(marked) ? 'lost' : 'stale');
      if (held === 'retired' || held === 'stale') report(`${held}-write`, driver);
      await engine.patch(id, { set: afterRegenerate(entries, marked, held) });
      return;
    }

    const handed = marked ?? lastHanded(id);
    const changed = diff(entries, handed);
    if (handed && changed.set.size + changed.unset.length + changed.purge.length === 0) return;
    const result = await engine.patch(id, { ...changed, mustExist: handed !== undefined });
    if (result === 'retired') report('retired-write', driver);
    if (result !== 'missing' || !handed) return;

    // The backend lost the record, or the session expired or was removed long ago. Only a young read proves that it was the former.
    if (!isYoung(handed)) {
      report('stale-write', driver);
      return;
    }
    const ifAbsent = encodeAll(entries, (entry) => !entry.touched);
    if (changed.set.size + ifAbsent.size === 0) return;
    const restored = await engine.patch(id, { set: changed.set, ifAbsent });
    if (restored === 'retired') report('retired-write', driver);
  };

  return {
    async getItem(id) {
      const { at, fields: reading } = read(id);
      const fields = await orAnswer(reading);
      if (!fields) {
        remember(id, undefined);
        return null;
      }
      const handed: Handed = { id, at, keys: new Map() };
      const flat = join(fields, Date.now(), onDamaged, { nonce: ownNonce(), handed });
      remember(id, handed);
      return flat;
    },

    setItem: (id, payload) => keepAlive(orAnswer(save(id, payload))),

    removeItem(id) {
      const removing = engine.retire(id);
      for (const [removed, { at }] of removals) {
        if (Date.now() - at < RETIRE_MS) break;
        removals.delete(removed);
      }
      const earlier = removals.get(id)?.done;
      const done = earlier ? afterEarlier(earlier, removing) : removing;
      keepLatest(removals, id, { done, at: Date.now() });

      const isOver = (): boolean => underway.delete(done);
      underway.add(done);
      done.then(isOver, isOver);

      const request = currentRequest();
      request?.reading.delete(nameOf(id));
      request?.removals.set(nameOf(id), done);
      return removing.then(() => undefined);
    },
  };
}

interface Removal {
  /** What the session held when it was removed. */
  done: Promise<Held>;
  at: number;
}

/** When two requests remove a session, neither takes it along, in whichever order they reached the backend. */
async function afterEarlier(earlier: Promise<Held>, removing: Promise<Held>): Promise<Held> {
  const [{ status }] = await Promise.allSettled([earlier, removing]);
  return status === 'fulfilled' ? 'retired' : removing;
}

/** What a request did to the session that it was handed. */
function diff(entries: Map<string, Entry>, handed: Handed | undefined) {
  const now = Date.now();
  const unset: string[] = [];
  const purge: string[] = [];
  for (const [key, expires] of handed?.keys ?? []) {
    if (entries.has(key)) continue;
    // Astro leaves out what has expired; another request may have renewed it.
    if (isExpired(expires, now)) purge.push(key);
    else unset.push(key);
  }
  const untouched = [...entries.values()].filter((entry) => !entry.touched).map((entry) => entry.expires);
  return { set: encodeAll(entries, (entry) => entry.touched), unset, purge, untouched };
}

/**
 * The session under its new id. What the request did not touch is taken from what the old record held when it was removed, so that a
 * change which landed in between is not lost. Where another request had removed the old one, only what this request set itself is
 * kept: everything else is gone because someone wanted it gone.
 */
function afterRegenerate(
  entries: Map<string, Entry>,
  handed: Handed,
  held: SessionFields | 'lost' | 'retired' | 'stale',
): Fields {
  const now = Date.now();
  const set = encodeAll(entries, (entry) => entry.touched || held === 'lost');
  if (typeof held === 'string') return set;
  for (const [key, field] of held) {
    const deleted = handed.keys.has(key) && !entries.has(key) && !isExpired(handed.keys.get(key), now);
    if (!set.has(key) && !deleted && !isExpired(expiryOf(field), now)) set.set(key, field);
  }
  return set;
}

/** Whether a read is so recent that the session cannot have been removed since, and the removal be forgotten. */
function isYoung(handed: Handed): boolean {
  return Math.abs(Date.now() - handed.at) < RETIRE_MS;
}

function encodeAll(entries: Map<string, Entry>, which: (entry: Entry) => boolean): Fields {
  const fields: Fields = new Map();
  for (const [key, entry] of entries) if (which(entry)) fields.set(key, entry.encoded());
  return fields;
}

function keepLatest<Value>(map: Map<string, Value>, key: string, value: Value): void {
  map.delete(key);
  map.set(key, value);
  if (map.size > REMEMBERED) map.delete(map.keys().next().value!);
}
