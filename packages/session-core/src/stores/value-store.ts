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
  inTwoValues,
  tombstonesIn,
  tombstonesInMemory,
  type Layout,
  type RecordCodec,
  type Slot,
  type ValueBackend,
} from './value-layout.ts';

/**
 * One operation: what it makes of a slot, and its answer. Returning the same slot means that nothing is to be written. What it throws
 * rejects the operation.
 */
type Step = (slot: Slot, clock: number) => { slot: Slot; answer: unknown };

/**
 * A store over whole values. Operations of one key wait for each other and are written together: 64 writers at once cost two
 * operations of the backend, not a hundred. With compare-and-set the whole is atomic across processes; without, it is so within this
 * process, and beyond it a tombstone under a key of its own keeps removed sessions removed, as soon as it is seen.
 */
export function valueStore(
  backend: ValueBackend,
  codec: RecordCodec = { pack: packRecord, unpack: unpackRecord },
): SessionStore {
  return storeOver(
    backend,
    backend.compareAndSet ? inOneValue(backend, codec) : inTwoValues(backend, codec, tombstonesIn(backend)),
  );
}

/** The same for a driver that is not ours: its keys may hold what is no session, and it is not given tombstones to keep. */
export function plainDriverStore(backend: ValueBackend, codec: RecordCodec): SessionStore {
  return storeOver(backend, inTwoValues(backend, codec, tombstonesInMemory(), false));
}

function storeOver(backend: ValueBackend, layout: Layout): SessionStore {
  const enqueue = createKeyQueue<Step>(async (key, turn, call, isCurrent) => {
    const check = againstContradiction();
    for (let round = 0; turn.jobs.length > 0; round++) {
      const refused = await runTogether(key, turn, call);
      if (!refused) return;
      check(refused.version);
      if (!isCurrent()) return;
      await pause(backOffMs(round), { signal: call.signal });
    }
  });

  /** Resolves to the version that was refused when another writer was faster. */
  const runTogether = async (
    key: string,
    turn: Turn<Step>,
    call: StoreCall,
  ): Promise<{ version: unknown } | undefined> => {
    const loaded = await layout.load(key, call);
    const clock = Date.now();
    // A write whose caller was told of a failure is never sent later.
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
        throw new Error('A store that is not atomic cannot extend a record by reading it.');
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
        // Nobody could be signed out otherwise whose record cannot be read.
        slot: {
          ...slot,
          record: null,
          tombstoneUntil: Math.max(slot.tombstoneUntil, lastsUntil(slot.record, clock, backend), clock + tombstoneMs),
        },
        answer: slot.tombstoneUntil > clock ? 'destroyed' : (slot.record?.fields ?? null),
      })),

    ...(backend.sweep && { sweep: (limit, call) => backend.sweep!(limit, call) }),
    ...(backend.close && { close: () => backend.close!() }),
  };
}

// An old record may come back from a replica for as long as it could live; with compare-and-set it cannot.
function lastsUntil(record: StoredRecord | null, clock: number, backend: ValueBackend): number {
  if (!record || backend.compareAndSet) return 0;
  const end = endOf(record);
  // A tombstone without an end would never leave the backend: it stays for as long as sessions live by default.
  return end === Infinity ? clock + DEFAULT_TTL_SECONDS * 1000 : end;
}

/** So often in a row nobody else is faster without another version to show for it. */
const CONTRADICTIONS = 8;

/** Fails where writing again would go on for ever: `get` answers always alike, and `set` always refuses that. */
function againstContradiction(): (refusedVersion: unknown) => void {
  let last: unknown;
  let count = 0;
  return (version) => {
    count = Object.is(version, last) ? count + 1 : 1;
    last = version;
    if (count < CONTRADICTIONS) return;
    const what =
      version === null
        ? '`get` finds no value, and `set` refuses to store one although its condition is that there is none. A value that has expired is no ' +
          'value, for `set` as for `get`'
        : '`get` answers with a version, and `set` refuses to replace it, again and again. A version must be the one that `set` compares with';
    throw new Error(`The backend contradicts itself: ${what}, and \`get\` must not answer from a cache.`);
  };
}

const BACK_OFF_MS = 5;
const BACK_OFF_LONGEST_MS = 200;

function backOffMs(round: number): number {
  return Math.random() * Math.min(BACK_OFF_MS * 2 ** round, BACK_OFF_LONGEST_MS);
}
