import { applyChange, endOf, packRecord, unpackRecord, type StoredRecord } from './record.ts';
import type { Fields, Lifetime, SessionStore, StoreCall } from './store.ts';

/** A backend that knows only whole values. Keys and values are well-formed text. */
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
  call: StoreCall;
  resolve(answer: never): void;
  reject(error: unknown): void;
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
  const queues = new Map<string, Job[]>();

  const run = <Answer>(key: string, call: StoreCall, step: Step<Answer>): Promise<Answer> =>
    new Promise((resolve, reject) => {
      const job = { step, call, resolve, reject } as Job;
      const queue = queues.get(key);
      if (queue) {
        queue.push(job);
        return;
      }
      queues.set(key, [job]);
      void work(key);
    });

  const work = async (key: string): Promise<void> => {
    const queue = queues.get(key)!;
    while (queue.length > 0) {
      const jobs = queue.splice(0);
      try {
        await runTogether(key, jobs);
      } catch (error) {
        for (const job of jobs) job.reject(error);
      }
    }
    queues.delete(key);
  };

  const runTogether = async (key: string, jobs: Job[]): Promise<void> => {
    for (let round = 0; ; round++) {
      // Whoever was told of a failure is not served any more: a rejected write is never sent later.
      const waiting = jobs.filter((job) => !job.call.signal.aborted);
      const call = waiting.at(-1)?.call;
      if (!call) return;
      const loaded = await layout.load(key, call);
      const clock = Date.now();
      let slot = loaded.slot;
      const answers = waiting.map((job) => {
        const done = job.step(slot, clock);
        slot = done.slot;
        return done.answer;
      });
      if (call.signal.aborted) continue;
      const saved = slot === loaded.slot ? 'saved' : await layout.save(key, slot, loaded.version, clock, call);
      if (saved === 'conflict') {
        await backOff(round);
        continue;
      }
      waiting.forEach((job, index) => job.resolve((saved === 'retired' ? 'retired' : answers[index]) as never));
      return;
    }
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
      return (await layout.load(key, call)).slot.record?.fields ?? null;
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
          retiredUntil: Math.max(slot.retiredUntil, lastsUntil(slot.record, backend), clock + retireForMs),
        },
        answer: slot.retiredUntil > clock ? 'retired' : (slot.record?.fields ?? null),
      })),

    ...(backend.sweep && { sweep: (limit, call) => backend.sweep!(limit, call) }),
    ...(backend.close && { close: () => backend.close!() }),
  };
}

/** How a slot lies in the backend. */
interface Layout {
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
  return {
    async load(key, call) {
      const stored = await backend.get(key, call);
      return { slot: readSlot(stored?.value, codec), version: stored ? stored.version : null };
    },
    async save(key, { record, retiredUntil }, version, clock, call) {
      const value = record ? codec.pack(record) : TOMBSTONE + retiredUntil;
      const lifetimeMs = lifetimeUntil(record ? endOf(record) : retiredUntil, clock);
      return (await backend.set(key, value, { ...withSignal(call), lifetimeMs, version })) ? 'saved' : 'conflict';
    },
  };
}

/** Without: the tombstone has a key of its own, and is looked for before and after a record is written. */
function inTwoValues(backend: ValueBackend, codec: RecordCodec): Layout {
  const tombstoneOf = async (key: string, call: StoreCall): Promise<number> =>
    readSlot((await backend.get(tombstoneKey(key), call))?.value, codec).retiredUntil;
  return {
    async load(key, call) {
      const [stored, retiredUntil] = await Promise.all([backend.get(key, call), tombstoneOf(key, call)]);
      const record = retiredUntil > Date.now() ? null : readSlot(stored?.value, codec).record;
      return { slot: { record, retiredUntil }, version: undefined };
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
    return { record: null, retiredUntil: Number(until) };
  }
  const record = codec.unpack(value);
  return { record: endOf(record) > Date.now() ? record : null, retiredUntil: 0 };
}

// An old record may come back from a replica for as long as it could live; with compare-and-set it cannot.
function lastsUntil(record: StoredRecord | null, backend: ValueBackend): number {
  return record && !backend.compareAndSet ? endOf(record) : 0;
}

function lifetimeUntil(end: number, clock: number): Lifetime {
  return end === Infinity ? 'never' : Math.max(end - clock, 0);
}

function withSignal(call: StoreCall): StoreCall {
  return { signal: call.signal };
}

const BACK_OFF_MS = 5;
const BACK_OFF_LONGEST_MS = 200;

function backOff(round: number): Promise<void> {
  const longest = Math.min(BACK_OFF_MS * 2 ** round, BACK_OFF_LONGEST_MS);
  return new Promise((resolve) => setTimeout(resolve, Math.random() * longest));
}
