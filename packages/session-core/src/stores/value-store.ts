import { endOf, packRecord, unpackRecord, type StoredRecord } from '../codec/packed-record.ts';
import {
  DEFAULT_TTL_SECONDS,
  type Fields,
  type PatchResult,
  type SessionStore,
  type StoreCall,
} from '../contract/store.ts';
import { pause } from '../platform/retry.ts';
import { applyChange } from './apply-patch.ts';
import { createKeyQueue, type Job, type Turn } from './key-queue.ts';
import {
  assertReadable,
  inOneValue,
  type Layout,
  type RecordCodec,
  type Slot,
  type ValueBackend,
} from './value-layout.ts';

/**
 * One operation: computes the new slot and the result. Returning the same slot object means that nothing needs to be written. An error that
 * it throws rejects the operation.
 */
type Step = (slot: Slot, clock: number) => { slot: Slot; answer: unknown };

/**
 * Creates a store on a backend that stores only whole values.
 *
 * Concurrent operations on one key are combined: 64 writers at once need two operations of the backend instead of 128. With
 * `compareAndSet`, changes are atomic across processes. Without it, they are atomic only within this process; across processes, a tombstone
 * under its own key keeps destroyed sessions destroyed once other processes can see it.
 *
 * @param codec converts records to values. Default: a compact string.
 * @example
 * const values = new Map<string, string>();
 * const store = valueStore({
 *   compareAndSet: false,
 *   get: async (key) => (values.has(key) ? { value: values.get(key)! } : null),
 *   set: async (key, value) => Boolean(values.set(key, value)),
 *   remove: async (key) => void values.delete(key),
 * });
 */
export function valueStore(
  backend: ValueBackend,
  codec: RecordCodec = { pack: packRecord, unpack: unpackRecord },
): SessionStore {
  // Most backends compare, so the other layout is loaded on demand.
  const inTwo = async (): Promise<Layout> => {
    const { inTwoValues, tombstonesIn } = await import('./two-values.ts');
    return inTwoValues(backend, codec, tombstonesIn(backend));
  };
  return storeOver(backend, backend.compareAndSet ? inOneValue(backend, codec) : loadedLate(inTwo));
}

function loadedLate(load: () => Promise<Layout>): Layout {
  let loaded: Layout | undefined;
  // After a failure, the next operation tries again.
  const layout = async (): Promise<Layout> => (loaded ??= await load());
  return {
    read: async (...read) => (await layout()).read(...read),
    load: async (...change) => (await layout()).load(...change),
    save: async (...change) => (await layout()).save(...change),
  };
}

/** Creates a store that keeps records in a layout. See `valueStore`. */
export function storeOver(backend: ValueBackend, layout: Layout): SessionStore {
  const enqueue = createKeyQueue<Step>(async (key, turn, call, isCurrent) => {
    const checkForContradiction = createContradictionCheck();
    for (let round = 0; turn.jobs.length > 0; round++) {
      const conflict = await runBatch(key, turn, call);
      if (!conflict) return;
      checkForContradiction(conflict.version);
      if (!isCurrent()) return;
      await pause(backOffMs(round), { signal: call.signal });
    }
  });

  /** Runs all jobs of a turn with one write. Resolves to the outdated version when another writer was faster, otherwise to undefined. */
  const runBatch = async (
    key: string,
    turn: Turn<Step>,
    call: StoreCall,
  ): Promise<{ version: unknown } | undefined> => {
    const loaded = await layout.load(key, call);
    const clock = Date.now();
    // A write that has failed for its caller must never be sent later.
    const jobs = turn.jobs.filter((job) => !job.isOver);
    let slot = loaded.slot;
    const answers = new Map<Job<Step>, unknown>();
    for (const job of jobs) {
      try {
        const done = job.step(slot, clock);
        slot = done.slot;
        answers.set(job, done.answer);
      } catch (error) {
        job.reject(error);
      }
    }
    turn.isSaving = true;
    const saved = slot === loaded.slot ? 'saved' : await layout.save(key, slot, loaded.version, clock, call);
    turn.isSaving = false;
    if (saved === 'conflict') return { version: loaded.version };
    for (const [job, answer] of answers) job.resolve(saved === 'destroyed' ? 'destroyed' : answer);
    turn.jobs = [];
    return undefined;
  };

  return {
    atomic: backend.compareAndSet,

    async read(key, call) {
      const { extendIdleMs } = call;
      if (extendIdleMs !== undefined && !backend.compareAndSet)
        throw new Error('A store without atomic changes cannot extend the idle limit on reading.');
      if (extendIdleMs !== undefined) {
        return enqueue<Fields | null>(key, call, (slot, clock) => {
          assertReadable(slot);
          return {
            slot: slot.record ? { ...slot, record: { ...slot.record, idleUntil: clock + extendIdleMs } } : slot,
            answer: slot.record?.fields ?? null,
          };
        });
      }
      return (await layout.read(key, call))?.fields ?? null;
    },

    patch: (key, change, call) =>
      enqueue<PatchResult>(key, call, (slot, clock) => {
        if (slot.tombstoneUntil > clock) return { slot, answer: 'destroyed' };
        assertReadable(slot);
        const record = applyChange(slot.record, change, clock);
        if (typeof record === 'string') return { slot, answer: record };
        return { slot: { record, tombstoneUntil: 0 }, answer: 'applied' };
      }),

    destroy: (key, tombstoneMs, call) =>
      enqueue<Fields | 'destroyed' | null>(key, call, (slot, clock) => ({
        // This also replaces a record that cannot be read. Otherwise its user could not sign out.
        slot: {
          ...slot,
          record: null,
          tombstoneUntil: Math.max(
            slot.tombstoneUntil,
            possibleReturnUntil(slot.record, clock, backend),
            clock + tombstoneMs,
          ),
        },
        answer: slot.tombstoneUntil > clock ? 'destroyed' : (slot.record?.fields ?? null),
      })),

    ...(backend.sweep && { sweep: (limit, call) => backend.sweep!(limit, call) }),
    ...(backend.close && { close: () => backend.close!() }),
  };
}

/**
 * Until when a destroyed record may come back, in epoch milliseconds. Without compare-and-set, a replica may return it until it expires.
 * With compare-and-set, this cannot happen.
 */
function possibleReturnUntil(record: StoredRecord | null, clock: number, backend: ValueBackend): number {
  if (!record || backend.compareAndSet) return 0;
  const end = endOf(record);
  // A tombstone without an end would stay in the backend indefinitely, so it gets the default lifetime of sessions.
  return end === Infinity ? clock + DEFAULT_TTL_SECONDS * 1000 : end;
}

/** If another writer were faster, the version would change. After this many conflicts in a row with one version, the backend is wrong. */
const MAX_CONFLICTS_WITH_ONE_VERSION = 8;

/** Returns a function that throws when retrying is pointless: `get` keeps returning a version that `set` keeps rejecting. */
function createContradictionCheck(): (rejectedVersion: unknown) => void {
  let last: unknown;
  let count = 0;
  return (version) => {
    count = Object.is(version, last) ? count + 1 : 1;
    last = version;
    if (count < MAX_CONFLICTS_WITH_ONE_VERSION) return;
    throw new Error(
      'The backend contradicts itself: `set` keeps rejecting the version that `get` returns. `ValueBackend` says what both must do.',
    );
  };
}

const BACK_OFF_MS = 5;
const MAX_BACK_OFF_MS = 200;

function backOffMs(round: number): number {
  return Math.random() * Math.min(BACK_OFF_MS * 2 ** round, MAX_BACK_OFF_MS);
}
