import {
  applyChange,
  type Change,
  endOf,
  type Fields,
  packRecord,
  type PatchResult,
  type StoredRecord,
  unpackRecord,
} from '@coatcheck/session-core/driver';

/** The version of requests and of stored values. A new part of a request, such as a new condition of a `Change`, needs a new version. */
const VERSION = 1;

/** What a Worker asks the object of a session. The two can be of different deployments, so the object rejects what it does not know. */
export type Request = { version: typeof VERSION } & (
  | { operation: 'read'; extendIdleMs?: number | undefined }
  | { operation: 'patch'; change: Change }
  | { operation: 'destroy'; tombstoneMs: number }
);

/** What an operation resolves to, as `SessionStore` says. */
export type Result = Fields | PatchResult | null;

/** The part of a Durable Object's storage that a session uses. Only SQLite-backed objects have `kv`, whose methods are synchronous. */
export interface ObjectStorage {
  readonly kv: { get(key: string): unknown; put(key: string, value: unknown): void };
  setAlarm(time: number): Promise<void>;
  deleteAlarm(): Promise<void>;
  deleteAll(): Promise<void>;
}

/** All that an object stores, under one key. Timestamps are epoch milliseconds by the object's clock; Infinity means never. */
interface Stored {
  version: typeof VERSION;
  /** The packed record. Null: a tombstone. */
  record: string | null;
  /** When the record expires, or the tombstone ends. */
  until: number;
  /** The alarm that was set last. It is never later than `until`. It is earlier if the record lives longer by now. */
  alarmAt: number;
}

const KEY = 'session';
const OPERATIONS = new Set<unknown>(['read', 'patch', 'destroy'] satisfies Request['operation'][]);

/** The limit is 2 MB, with the key and what is around the record: https://developers.cloudflare.com/durable-objects/platform/limits/ */
const MAX_RECORD_BYTES = 1_999_000;
/** Cloudflare refuses alarms after 2189. */
const MAX_ALARM_MS = 365 * 24 * 60 * 60_000;
/** When to remove everything again after that failed. */
const RETRY_MS = 60_000;
/** When to look again at a value that this version cannot read. */
const RECHECK_MS = 24 * 60 * 60_000;

/**
 * Runs one operation on the session in this storage. Everything from the read to the write is synchronous, so no other operation comes in
 * between. Cloudflare holds the answer back until the write is durable.
 *
 * @throws when nothing was stored: the record is corrupt or too large, or the request is of another version. `problems.ts` explains it.
 */
export async function operate(storage: ObjectStorage, request: Request): Promise<Result> {
  if (request?.version !== VERSION || !OPERATIONS.has(request.operation))
    throw new Error('The request is of another version.');
  const now = Date.now();
  const found = storage.kv.get(KEY);
  const before = isStored(found) ? found : undefined;
  const live = before && before.until > now ? before : undefined;

  if (request.operation === 'destroy') {
    const end = now + request.tombstoneMs;
    const until = live?.record === null ? Math.max(live.until, end) : end;
    await save(storage, before, null, until, now);
    if (!live) return null;
    return live.record === null ? 'destroyed' : lastContents(live.record);
  }
  if (found !== undefined && !before) throw new Error('The stored record is corrupt, or a newer version wrote it.');
  const record = live && live.record !== null ? unpackRecord(live.record) : null;
  if (request.operation === 'read') {
    if (!record) return null;
    if (request.extendIdleMs !== undefined) {
      record.idleUntil = now + request.extendIdleMs;
      await save(storage, before, record, endOf(record), now);
    }
    return record.fields;
  }
  if (live?.record === null) return 'destroyed';
  const changed = applyChange(record, request.change, now);
  if (typeof changed === 'string') return changed;
  await save(storage, before, changed, endOf(changed), now);
  return 'applied';
}

/** Removes everything if the record has expired or the tombstone has ended. Otherwise, sets the alarm again. */
export async function cleanUp(storage: ObjectStorage): Promise<void> {
  const now = Date.now();
  const found = storage.kv.get(KEY);
  if (found !== undefined && !isStored(found)) return storage.setAlarm(now + RECHECK_MS);
  if (found && found.until > now) return setAlarm(storage, alarmFor(found.until, now));
  try {
    // Before the compatibility date 2026-02-24, `deleteAll` keeps the alarm.
    await Promise.all([storage.deleteAlarm(), storage.deleteAll()]);
  } catch {
    // Cloudflare repeats an alarm that fails, but not after `deleteAlarm`.
    await storage.setAlarm(now + RETRY_MS);
  }
}

/**
 * Stores a record, or a tombstone for null. Moves the alarm only if it would be too late: setting it is billed like a write.
 *
 * @param until when the record expires, or the tombstone ends.
 */
function save(
  storage: ObjectStorage,
  before: Stored | undefined,
  record: StoredRecord | null,
  until: number,
  now: number,
): Promise<void> | undefined {
  const packed = record && packRecord(record);
  if (packed !== null) checkSize(packed);
  const isEarlyEnough = before !== undefined && before.alarmAt > now && before.alarmAt <= until;
  const alarmAt = isEarlyEnough ? before.alarmAt : alarmFor(until, now);
  storage.kv.put(KEY, { version: VERSION, record: packed, until, alarmAt } satisfies Stored);
  return isEarlyEnough ? undefined : setAlarm(storage, alarmAt);
}

function alarmFor(until: number, now: number): number {
  return until === Infinity ? Infinity : Math.min(Math.max(until, now), now + MAX_ALARM_MS);
}

async function setAlarm(storage: ObjectStorage, alarmAt: number): Promise<void> {
  if (alarmAt !== Infinity) await storage.setAlarm(alarmAt);
}

/** The fields of a record that is destroyed. Null if they are corrupt, so that its user can sign out. */
function lastContents(record: string): Fields | null {
  try {
    return unpackRecord(record).fields;
  } catch {
    return null;
  }
}

function checkSize(record: string): void {
  // V8 stores one byte per character, or two if the string has a character outside of Latin-1.
  const bytes = /[^\0-\xFF]/.test(record) ? record.length * 2 : record.length;
  if (bytes > MAX_RECORD_BYTES) throw new Error(`The session is too large, with ${bytes} bytes.`);
}

function isStored(value: unknown): value is Stored {
  const { version, record, until, alarmAt } = (value ?? {}) as Partial<Stored>;
  return (
    version === VERSION &&
    (record === null || typeof record === 'string') &&
    typeof until === 'number' &&
    typeof alarmAt === 'number'
  );
}
