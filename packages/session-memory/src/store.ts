import {
  applyChange,
  createError,
  createTombstones,
  endOf,
  packRecord,
  report,
  unpackRecord,
  type Resolved,
  type SessionStore,
  type StoredRecord,
} from '@coatcheck/session-core/driver';
import { LRUCache } from 'lru-cache';
import type { MemoryDriverConfig } from './options.ts';

const PURGE_EVERY_MS = 60_000;

/**
 * Sessions as packed strings: a third of the memory that live objects take, and nothing that a reader could change for another.
 */
export function openMemoryStore({
  maxSessions = 100_000,
  maxBytes = 2 ** 28,
}: Resolved<MemoryDriverConfig>): SessionStore {
  const cache = new LRUCache<string, string>({
    max: maxSessions,
    maxSize: maxBytes,
    // The records say when they end by this clock, which also runs on while the machine is suspended.
    perf: { now: () => Date.now() },
    ttlResolution: 0,
    sizeCalculation: (packed, key) => packed.length + key.length,
    dispose: (_packed, _key, reason) => {
      if (reason === 'evict') onEviction();
    },
  });
  // Apart from the sessions, so that no lack of room brings a removed one back.
  const tombstones = createTombstones();
  let warned = false;
  let purgedAt = Date.now();

  const onEviction = (): void => {
    report('eviction', 'session-memory');
    if (warned) return;
    warned = true;
    console.warn(
      `[session-memory] There is no room for more sessions: the ones not used for the longest time are dropped from now on. ` +
        `Raise \`maxSessions\` (${maxSessions}) or \`maxBytes\` (${maxBytes}), or use a backend outside of the process.`,
    );
  };

  const load = (key: string): StoredRecord | null => {
    const packed = cache.get(key);
    if (!packed) return null;
    const record = unpackRecord(packed);
    return endOf(record) > Date.now() ? record : null;
  };

  const save = (key: string, packed: string, endsAt: number): void => {
    if (packed.length + key.length > maxBytes) {
      throw createError(
        'session-memory',
        'invalid-data',
        `The session is larger than \`maxBytes\` (${maxBytes}); it was not stored.`,
      );
    }
    const now = Date.now();
    // The cache itself removes what has expired only when somebody asks for it.
    if (now - purgedAt > PURGE_EVERY_MS) {
      cache.purgeStale();
      purgedAt = now;
    }
    if (endsAt <= now) cache.delete(key);
    else cache.set(key, packed, { ttl: endsAt === Infinity ? 0 : endsAt - now });
  };

  return {
    atomic: true,

    async read(key, { signal, extendIdleMs }) {
      signal.throwIfAborted();
      const record = load(key);
      if (record && extendIdleMs !== undefined) {
        const touched = { ...record, idleUntil: Date.now() + extendIdleMs };
        save(key, packRecord(touched), endOf(touched));
      }
      return record && record.fields;
    },

    async patch(key, change, { signal }) {
      signal.throwIfAborted();
      if (tombstones.has(key)) return 'destroyed';
      const changed = applyChange(load(key), change, Date.now());
      if (typeof changed === 'string') return changed;
      save(key, packRecord(changed), endOf(changed));
      return 'applied';
    },

    async destroy(key, tombstoneMs, { signal }) {
      signal.throwIfAborted();
      const held = tombstones.has(key) ? 'destroyed' : (load(key)?.fields ?? null);
      cache.delete(key);
      tombstones.add(key, tombstoneMs);
      return held;
    },

    async close() {
      cache.clear();
      tombstones.clear();
    },
  };
}
