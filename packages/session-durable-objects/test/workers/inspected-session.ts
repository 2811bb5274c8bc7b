import { CoatcheckSession } from '@coatcheck/session-durable-objects/object';

/** The part of the storage whose calls are counted. */
interface CountedStorage {
  kv: { get(key: string): unknown; put(key: string, value: unknown): void };
  setAlarm(time: number): Promise<void>;
  deleteAlarm(): Promise<void>;
  deleteAll(): Promise<void>;
}

interface Storage extends CountedStorage {
  sql: { exec(query: string): Iterable<Record<string, unknown>> };
  getAlarm(): Promise<number | null>;
}

/** What an object has asked its storage for. */
export interface Counts {
  get: number;
  put: number;
  setAlarm: number;
  deleteAll: number;
}

export interface Contents {
  /** The tables of its database. */
  tables: string[];
  alarm: number | null;
  stored: unknown;
}

/** The object as the package exports it, and methods with which a test looks into its storage. */
export class InspectedSession extends CoatcheckSession {
  // Of the class of Cloudflare, whose types the tests do not have.
  declare ctx: { storage: CountedStorage };
  readonly #storage: Storage;
  readonly #abort: (reason: string) => void;
  #counts: Counts = { get: 0, put: 0, setAlarm: 0, deleteAll: 0 };

  constructor(...context: [never, never]) {
    super(...(context as unknown as []));
    const { storage, abort } = this.ctx as unknown as { storage: Storage; abort(reason: string): void };
    this.#storage = storage;
    this.#abort = abort.bind(this.ctx);
    this.ctx = { storage: counted(this.ctx.storage, this.#counts) };
  }

  async contents(): Promise<Contents> {
    // Whether there is a table first: reading a value could create one.
    const tables = [...this.#storage.sql.exec('SELECT name FROM sqlite_master')].map(({ name }) => String(name));
    return {
      tables: tables.sort(),
      alarm: await this.#storage.getAlarm(),
      stored: tables.includes('_cf_KV') ? this.#storage.kv.get('session') : undefined,
    };
  }

  async store(value: unknown): Promise<void> {
    this.#storage.kv.put('session', value);
  }

  /** What the object did since the last call. */
  async counts(): Promise<Counts> {
    const counts = { ...this.#counts };
    Object.assign(this.#counts, { get: 0, put: 0, setAlarm: 0, deleteAll: 0 } satisfies Counts);
    return counts;
  }

  setAlarm(time: number): Promise<void> {
    return this.#storage.setAlarm(time);
  }

  /** Stops the clock of all objects at a timestamp. */
  async setClock(now: number): Promise<void> {
    Date.now = () => now;
  }

  /** Runs the alarm now. Its own name cannot be called from outside. */
  runAlarm(): Promise<void> {
    return this.alarm();
  }

  /** Evicts the object from memory. */
  evict(): void {
    this.#abort('evicted by the test');
  }
}

function counted(storage: CountedStorage, counts: Counts): CountedStorage {
  return {
    kv: {
      get: (key) => ((counts.get += 1), storage.kv.get(key)),
      put: (key, value) => ((counts.put += 1), storage.kv.put(key, value)),
    },
    setAlarm: (time) => ((counts.setAlarm += 1), storage.setAlarm(time)),
    deleteAlarm: () => storage.deleteAlarm(),
    deleteAll: () => ((counts.deleteAll += 1), storage.deleteAll()),
  };
}
