import { applyChange, endOf, packRecord, unpackRecord, type StoredRecord } from './record.ts';
import {
  DEFAULT_TTL_SECONDS,
  type Fields,
  type FormerSessions,
  type Lifetime,
  type SessionStore,
  type StoreCall,
} from './store.ts';

/** A backend that knows only whole values. Keys and values are well-formed text without NUL. */
export interface ValueBackend {
  /** Whether `set` honours `version`, across processes. */
  readonly compareAndSet: boolean;
  /** The value and the version that it has, or null when there is none. May return a value whose lifetime is over. */
  get(key: string, call: StoreCall): Promise<{ value: string; version?: unknown } | null>;
  /**
   * Stores a value that lives for `lifetimeMs`, or longer where the backend cannot do better. With compare-and-set: only if the stored
   * value still has `version`, where null stands for no value; resolves to false, and stores nothing, when it has not.
   */
  set(key: string, value: string, call: StoreCall & { lifetimeMs: Lifetime; version: unknown }): Promise<boolean>;
  /** Removes a value. A missing one is no error. */
  remove(key: string, call: StoreCall): Promise<void>;
  readonly former?: FormerSessions;
  sweep?(limit: number, call: StoreCall): Promise<number>;
  close?(): Promise<void>;
}

/** How records become values. */
export interface RecordCodec {
  pack(record: StoredRecord): string;
  /** Throws when the value is no record. */
  unpack(value: string): StoredRecord;
}

/** What is known of one key. */
interface Slot {
  record: StoredRecord | null;
  retiredUntil: number;
}

/** One operation: what it makes of a slot, and what it answers. The same slot means that nothing is to be written. */
type Step<Answer> = (slot: Slot, clock: number) => { slot: Slot; answer: Answer };

interface Job {
  step: Step<unknown>;
  since: number;
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
  since: number;
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
  const layout = backend.compareAndSet ? inOneValue(backend, codec) : inTwoValues(backend, codec);
  const queues = new Map<string, Queue>();

  // Every operation does its work in the request that it belongs to, and looks at no signal but its own: what a Cloudflare Worker made
  // in one request, it may not touch in another. A request that is cancelled there takes its work along without a word, so whoever has
  // waited to its deadline ends the turn that it waited for.
  const run = <Answer>(key: string, call: StoreCall, step: Step<Answer>): Promise<Answer> => {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    const { promise: begun, resolve: begin } = Promise.withResolvers<Turn>();
    const job = { step, since: Date.now(), isOver: call.signal.aborted, begin, resolve, reject } as Job;
    const queue = queues.get(key) ?? { waiting: [], turn: undefined };
    const before = queue.turn;

    call.signal.addEventListener('abort', () => {
      job.isOver = true;
      const isSilent = before && queue.turn === before && Date.now() - before.since > SILENT_MS;
      if (isSilent) {
        // All who came earlier have waited as long, and know it or are gone.
        for (const other of [...before.jobs, ...queue.waiting]) other.isOver ||= other.since <= job.since;
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
    queue.turn = next && { of: next, since: Date.now(), jobs: [], isSaving: false };
    if (queue.turn) next!.begin(queue.turn);
    else if (queues.get(key) === queue) queues.delete(key);
  };

  const work = async (key: string, queue: Queue, turn: Turn, call: StoreCall): Promise<void> => {
    turn.jobs = queue.waiting.splice(0);
    try {
      for (let round = 0; turn.jobs.length > 0 && !(await runTogether(key, turn, call)); round++) {
        if (queue.turn === turn) await backOff(round);
        else queue.waiting.unshift(...turn.jobs.splice(0));
      }
    } catch (error) {
      for (const job of turn.jobs.splice(0)) job.reject(error);
    }
    if (!queue.turn) pass(key, queue);
  };

  /** Resolves to false when somebody else was faster. */
  const runTogether = async (key: string, turn: Turn, call: StoreCall): Promise<boolean> => {
    const loaded = await layout.load(key, call);
    const clock = Date.now();
    // Whoever was told of a failure is not served any more: a rejected write is never sent later.
    const jobs = turn.jobs.filter((job) => !job.isOver);
    let slot = loaded.slot;
    const answers = jobs.map((job) => {
      const done = job.step(slot, clock);
      slot = done.slot;
      return done.answer;
    });
    turn.isSaving = true;
    const saved = slot === loaded.slot ? 'saved' : await layout.save(key, slot, loaded.version, clock, call);
    turn.isSaving = false;
    if (saved === 'conflict') return false;
    jobs.forEach((job, index) => job.resolve((saved === 'retired' ? 'retired' : answers[index]) as never));
    turn.jobs = [];
    return true;
  };

  return {
    atomic: backend.compareAndSet,

    async read(key, call) {
      const { touchMs } = call;
      if (touchMs !== undefined && !backend.compareAndSet)
        throw new Error('A store that is not atomic cannot extend a record by reading it.');
      if (touchMs !== undefined) {
        return run(key, call, (slot, clock) => ({
          slot: slot.record ? { ...slot, record: { ...slot.record, idleUntil: clock + touchMs } } : slot,
          answer: slot.record?.fields ?? null,
        }));
      }
      return (await layout.read(key, call))?.fields ?? null;
    },

    patch: (key, change, call) =>
      run(key, call, (slot, clock) => {
        if (slot.retiredUntil > clock) return { slot, answer: 'retired' };
        const record = applyChange(slot.record, change, clock);
        if (typeof record === 'string') return { slot, answer: record };
        return { slot: { record, retiredUntil: 0 }, answer: 'applied' };
      }),

    retire: (key, retireForMs, call) =>
      run<Fields | 'retired' | null>(key, call, (slot, clock) => ({
        slot: {
          record: null,
          retiredUntil: Math.max(slot.retiredUntil, lastsUntil(slot.record, clock, backend), clock + retireForMs),
        },
        answer: slot.retiredUntil > clock ? 'retired' : (slot.record?.fields ?? null),
      })),

    ...(backend.former && { former: backend.former }),
    ...(backend.sweep && { sweep: (limit, call) => backend.sweep!(limit, call) }),
    ...(backend.close && { close: () => backend.close!() }),
  };
}

/** How a slot lies in the backend. */
interface Layout {
  /** The live record. */
  read(key: string, call: StoreCall): Promise<StoredRecord | null>;
  /** What a change is made to. A tombstone may be overlooked where there is a record: `save` finds it. */
  load(key: string, call: StoreCall): Promise<{ slot: Slot; version: unknown }>;
  save(
    key: string,
    slot: Slot,
    version: unknown,
    clock: number,
    call: StoreCall,
  ): Promise<'saved' | 'conflict' | 'retired'>;
}

const TOMBSTONE = 'retired ';

/** With compare-and-set: the tombstone takes the record's place. */
function inOneValue(backend: ValueBackend, codec: RecordCodec): Layout {
  const load = async (key: string, call: StoreCall): Promise<{ slot: Slot; version: unknown }> => {
    const stored = await backend.get(key, call);
    return { slot: readSlot(stored?.value, codec), version: stored ? stored.version : null };
  };
  return {
    load,
    read: async (key, call) => (await load(key, call)).slot.record,
    async save(key, { record, retiredUntil }, version, clock, call) {
      const value = record ? codec.pack(record) : TOMBSTONE + retiredUntil;
      const lifetimeMs = lifetimeUntil(record ? endOf(record) : retiredUntil, clock);
      return (await backend.set(key, value, { ...withSignal(call), lifetimeMs, version })) ? 'saved' : 'conflict';
    },
  };
}

/**
 * Without: the tombstone has a key of its own, which late writers cannot overwrite. Reading looks at both, because a writer that could not
 * see the tombstone yet may have put the record back; writing looks for it when the record is written.
 */
function inTwoValues(backend: ValueBackend, codec: RecordCodec): Layout {
  const recordOf = async (key: string, call: StoreCall): Promise<StoredRecord | null> =>
    readSlot((await backend.get(key, call))?.value, codec).record;
  const tombstoneOf = async (key: string, call: StoreCall): Promise<number> =>
    readSlot((await backend.get(tombstoneKey(key), call))?.value, codec).retiredUntil;
  return {
    async read(key, call) {
      const [record, retiredUntil] = await Promise.all([recordOf(key, call), tombstoneOf(key, call)]);
      return retiredUntil > Date.now() ? null : record;
    },
    async load(key, call) {
      const record = await recordOf(key, call);
      return { slot: { record, retiredUntil: record ? 0 : await tombstoneOf(key, call) }, version: undefined };
    },
    async save(key, { record, retiredUntil }, version, clock, call) {
      if (!record) {
        const lifetimeMs = lifetimeUntil(retiredUntil, clock);
        await backend.set(tombstoneKey(key), TOMBSTONE + retiredUntil, { ...withSignal(call), lifetimeMs, version });
        await backend.remove(key, call);
        return 'saved';
      }
      await backend.set(key, codec.pack(record), {
        ...withSignal(call),
        lifetimeMs: lifetimeUntil(endOf(record), clock),
        version,
      });
      if ((await tombstoneOf(key, call)) <= Date.now()) return 'saved';
      await backend.remove(key, call);
      return 'retired';
    },
  };
}

/** Where a store that is not atomic keeps the tombstone of a key. */
export function tombstoneKey(key: string): string {
  return `${key}.retired`;
}

function readSlot(value: string | undefined, codec: RecordCodec): Slot {
  if (value === undefined) return { record: null, retiredUntil: 0 };
  if (value.startsWith(TOMBSTONE)) {
    const until = value.slice(TOMBSTONE.length);
    if (!/\d|Infinity/.test(until) || Number.isNaN(Number(until))) throw new Error('The stored tombstone is damaged.');
    return { record: null, retiredUntil: Number(until) };
  }
  const record = codec.unpack(value);
  return { record: endOf(record) > Date.now() ? record : null, retiredUntil: 0 };
}

// An old record may come back from a replica for as long as it could live; with compare-and-set it cannot.
function lastsUntil(record: StoredRecord | null, clock: number, backend: ValueBackend): number {
  if (!record || backend.compareAndSet) return 0;
  const end = endOf(record);
  // A tombstone without an end would never leave the backend: it stays for as long as sessions live by default.
  return end === Infinity ? clock + DEFAULT_TTL_SECONDS * 1000 : end;
}

function lifetimeUntil(end: number, clock: number): Lifetime {
  return end === Infinity ? 'never' : Math.max(end - clock, 0);
}

function withSignal(call: StoreCall): StoreCall {
  return { signal: call.signal };
}

/** Below that, an operation that ended early says nothing of the one that it waited for. */
const SILENT_MS = 500;

const BACK_OFF_MS = 5;
const BACK_OFF_LONGEST_MS = 200;

function backOff(round: number): Promise<void> {
  const longest = Math.min(BACK_OFF_MS * 2 ** round, BACK_OFF_LONGEST_MS);
  return new Promise((resolve) => setTimeout(resolve, Math.random() * longest));
}
