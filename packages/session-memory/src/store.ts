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
 * Opens an empty store in memory. Records are kept as packed strings: they take a third of the memory of objects, and a caller cannot
 * change the record of another caller through a shared object.
 */
export function openMemoryStore({
  maxSessions = 100_000,
  maxBytes = 2 ** 28,
}: Resolved<MemoryDriverConfig>): SessionStore {
  const cache = new LRUCache<string, string>({
    max: maxSessions,
    maxSize: maxBytes,
    // The expiry of a record is based on this clock. Unlike `performance.now()`, it advances while the machine is suspended.
    perf: { now: () => Date.now() },
    ttlResolution: 0,
    sizeCalculation: (packed, key) => packed.length + key.length,
    dispose: (_packed, _key, reason) => {
      if (reason === 'evict') onEviction();
    },
  });
  // Tombstones are not in the cache: evicting one would let a late write restore a destroyed session.
  const tombstones = createTombstones();
  let warned = false;
  let purgedAt = Date.now();

  const onEviction = (): void => {
    report('eviction', 'session-memory');
    if (warned) return;
    warned = true;
    console.warn(
      `[session-memory] The store is full. From now on, the least recently used sessions are evicted. ` +
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
    // The cache removes an expired entry only when that entry is read.
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
        const extended = { ...record, idleUntil: Date.now() + extendIdleMs };
        save(key, packRecord(extended), endOf(extended));
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
      const result = tombstones.has(key) ? 'destroyed' : (load(key)?.fields ?? null);
      cache.delete(key);
      tombstones.add(key, tombstoneMs);
      return result;
    },

    async close() {
      cache.clear();
      tombstones.clear();
    },
  };
}
