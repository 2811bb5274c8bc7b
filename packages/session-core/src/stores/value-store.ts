import { endOf, packRecord, unpackRecord, type StoredRecord } from '../codec/packed-record.ts';
import { DEFAULT_TTL_SECONDS, type Fields, type SessionStore, type StoreCall } from '../contract/store.ts';
import { type Moment, msSince, thisMoment } from '../platform/clock.ts';
import { pause } from '../platform/retry.ts';
import { applyChange } from './apply-patch.ts';
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
 * One operation: what it makes of a slot, and what it answers. The same slot means that nothing is to be written. What it throws, its
 * caller is told.
 */
type Step<Answer> = (slot: Slot, clock: number) => { slot: Slot; answer: Answer };

interface Job {
  step: Step<unknown>;
  since: Moment;
  /** Whether its caller was told that it failed. */
  isOver: boolean;
  begin(turn: Turn): void;
  resolve(answer: never): void;
  reject(error: unknown): void;
}

/** The operations of one key. */
interface Queue {
  waiting: Job[];
  turn: Turn | undefined;
}

/** One operation at work, for itself and for those that waited when it began. */
interface Turn {
  of: Job;
  since: Moment;
  jobs: Job[];
  isSaving: boolean;
}

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
  const queues = new Map<string, Queue>();

  // Every operation does its work in the request that it belongs to, and looks at no signal but its own: what a Cloudflare Worker made
  // in one request, it may not touch in another. A request that is cancelled there takes its work along without a word, so whoever has
  // waited to its deadline ends the turn that it waited for.
  const run = <Answer>(key: string, call: StoreCall, step: Step<Answer>): Promise<Answer> => {
    if (call.signal.aborted) return Promise.reject(call.signal.reason as Error);
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    const { promise: begun, resolve: begin } = Promise.withResolvers<Turn>();
    const job = { step, since: thisMoment(), isOver: false, begin, resolve, reject } as Job;
    const queue = queues.get(key) ?? { waiting: [], turn: undefined };
    const before = queue.turn;

    call.signal.addEventListener('abort', () => {
      job.isOver = true;
      // After the backend's own reason, which says more.
      setTimeout(() => reject(call.signal.reason), 0);
      const isSilent = before && queue.turn === before && msSince(before.since) > SILENT_MS;
      if (isSilent) {
        // All who came earlier have waited as long, and know it or are gone.
        for (const other of [...before.jobs, ...queue.waiting])
          other.isOver ||= other.since.monotonic <= job.since.monotonic;
      }
      if (isSilent || queue.turn?.of === job) pass(key, queue);
    });
    void begun.then(async (turn) => {
      if (!job.isOver) await work(key, queue, turn, call);
      if (queue.turn === turn) pass(key, queue);
    });
    queues.set(key, queue);
    queue.waiting.push(job);
    if (!before) pass(key, queue);
    return promise;
  };

  /** Ends the turn, if there is one, and begins the next. */
  const pass = (key: string, queue: Queue): void => {
    // What is being written is not written by another as well.
    if (queue.turn && !queue.turn.isSaving) queue.waiting.unshift(...queue.turn.jobs.splice(0));
    queue.waiting = queue.waiting.filter((job) => !job.isOver);
    const [next] = queue.waiting;
    queue.turn = next && { of: next, since: thisMoment(), jobs: [], isSaving: false };
    if (queue.turn) next!.begin(queue.turn);
    else if (queues.get(key) === queue) queues.delete(key);
  };

  const work = async (key: string, queue: Queue, turn: Turn, call: StoreCall): Promise<void> => {
    turn.jobs = queue.waiting.splice(0);
    const check = againstContradiction();
    try {
      for (let round = 0; turn.jobs.length > 0; round++) {
        const refused = await runTogether(key, turn, call);
        if (!refused) break;
        check(refused.version);
        if (queue.turn === turn) await pause(backOffMs(round), { signal: call.signal });
        else queue.waiting.unshift(...turn.jobs.splice(0));
      }
    } catch (error) {
      // Also whose turn it was and is not any more: what failed was asked for by that call.
      for (const job of [turn.of, ...turn.jobs.splice(0)]) job.reject(error);
    }
    if (!queue.turn) pass(key, queue);
  };

  /** Resolves to the version that was refused when somebody else was faster. */
  const runTogether = async (key: string, turn: Turn, call: StoreCall): Promise<{ version: unknown } | undefined> => {
    const loaded = await layout.load(key, call);
    const clock = Date.now();
    // Whoever was told of a failure is not served any more: a rejected write is never sent later.
    const jobs = turn.jobs.filter((job) => !job.isOver);
    let slot = loaded.slot;
    const answers = new Map<Job, unknown>();
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
    for (const [job, answer] of answers) job.resolve((saved === 'destroyed' ? 'destroyed' : answer) as never);
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
        return run(key, call, (slot, clock) => {
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
      run(key, call, (slot, clock) => {
        if (slot.tombstoneUntil > clock) return { slot, answer: 'destroyed' };
        assertReadable(slot);
        const record = applyChange(slot.record, change, clock);
        if (typeof record === 'string') return { slot, answer: record };
        return { slot: { record, tombstoneUntil: 0 }, answer: 'applied' };
      }),

    destroy: (key, tombstoneMs, call) =>
      run<Fields | 'destroyed' | null>(key, call, (slot, clock) => ({
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

/** Below that, an operation that ended early says nothing of the one that it waited for. */
const SILENT_MS = 500;

const BACK_OFF_MS = 5;
const BACK_OFF_LONGEST_MS = 200;

function backOffMs(round: number): number {
  return Math.random() * Math.min(BACK_OFF_MS * 2 ** round, BACK_OFF_LONGEST_MS);
}
