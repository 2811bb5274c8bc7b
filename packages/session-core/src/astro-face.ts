import { RETIRE_MS, type Engine, type Held } from './engine.ts';
import { expiryOf, isExpired } from './fields.ts';
import { join, split, type Entry, type Handed } from './payload.ts';
import { report } from './report.ts';
import { currentRequest, orAnswer, trackRequests } from './requests.ts';
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
  const nonce = crypto.randomUUID();
  const lastReads = new Map<string, Handed>();
  const removals = new Map<string, Removal>();
  trackRequests();

  const onDamaged = (): void => report('damaged-field', driver);

  const remember = (handed: Handed): void => {
    const request = currentRequest();
    if (request) request.reads.set(`${nonce}:${handed.id}`, handed);
    else keepLatest(lastReads, handed.id, handed);
  };

  const lastHanded = (id: string): Handed | undefined => {
    const request = currentRequest();
    return request ? request.reads.get(`${nonce}:${id}`) : lastReads.get(id);
  };

  const save = async (id: string, payload: unknown): Promise<void> => {
    const { entries, handed: marked } = split(driver, payload, nonce);
    const underway = currentRequest()?.removals ?? [...removals.values()].map((removal) => removal.done);
    await Promise.allSettled([...underway, removals.get(id)?.done]);

    if (marked && marked.id !== id) {
      const held = await removals.get(marked.id)?.done.catch(() => null);
      if (held === 'retired') report('retired-write', driver);
      await engine.patch(id, { set: afterRegenerate(entries, marked, held ?? null) });
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
      const fields = await orAnswer(engine.read(id));
      if (!fields) return null;
      const now = Date.now();
      const handed: Handed = { id, at: now, keys: new Map() };
      const flat = join(fields, now, onDamaged, { nonce, handed });
      remember(handed);
      return flat;
    },

    setItem: (id, payload) => orAnswer(save(id, payload)),

    removeItem(id) {
      const done = engine.retire(id);
      for (const [removed, { at }] of removals) {
        if (Date.now() - at < RETIRE_MS) break;
        removals.delete(removed);
      }
      keepLatest(removals, id, { done, at: Date.now() });
      currentRequest()?.removals.push(done);
      return done.then(() => undefined);
    },
  };
}

interface Removal {
  /** What the session held when it was removed. */
  done: Promise<Held>;
  at: number;
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
function afterRegenerate(entries: Map<string, Entry>, handed: Handed, held: Held): Fields {
  const now = Date.now();
  const set = encodeAll(entries, (entry) => entry.touched || (held === null && isYoung(handed)));
  if (held === 'retired') return set;
  for (const [key, field] of held ?? []) {
    const deleted = handed.keys.has(key) && !entries.has(key) && !isExpired(handed.keys.get(key), now);
    if (!set.has(key) && !deleted && !isExpired(expiryOf(field), now)) set.set(key, field);
  }
  return set;
}

/** Whether a read is so recent that the session cannot have been removed and the removal be forgotten since. */
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
