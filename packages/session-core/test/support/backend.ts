import type { Sessions, Session } from '@coatcheck/session-core';
import {
  defineDriver,
  isCounted,
  recordKey,
  type Fields,
  type Lifetime,
  type SessionStore,
  type SharedOptions,
  type SessionDriver,
} from '@coatcheck/session-core/driver';
import { openMemoryStore } from '../../../session-memory/src/store.ts';

export type Operation = 'read' | 'patch' | 'destroy';

/** A backend in memory that records its calls and lets a test intervene. */
export interface Backend {
  driver: SessionDriver;
  /** The calls of the store so far. A test can empty the list. */
  calls: Operation[];
  /** Runs before each call of the store. If it throws, the operation fails with that error. */
  before: (operation: Operation) => unknown;
  /** Runs after each call of the store, and returns the result of the operation: by default, the result of the store. */
  after: (operation: Operation, answer: unknown) => unknown;
  /** The `lifetimeMs` of each change. */
  lifetimes: Lifetime[];
  /** The keys of all calls. */
  keys: Set<string>;
  /** The fields that are stored for an id, without the time of the creation. The read is not recorded. */
  peek(id: string): Promise<Fields | null>;
  /** Stores fields unchecked and unencoded. The write is not recorded. */
  poke(id: string, fields: Record<string, string>): Promise<void>;
  /** Another driver with other options, on the same records. */
  again(config: SharedOptions): SessionDriver;
  /** Loses all records, as a full backend loses some. */
  evict(): void;
}

let backends = 0;

export function createBackend(config: SharedOptions = {}): Backend {
  // Drivers with the same name and configuration share a store, so each backend needs its own name.
  const name = `session-test-${++backends}`;
  let store = openMemoryStore({ maxSessions: 1000 });
  const call = { signal: new AbortController().signal };

  const watch = async <Answer>(operation: Operation, key: string, work: () => Promise<Answer>): Promise<Answer> => {
    backend.calls.push(operation);
    backend.keys.add(key);
    await backend.before(operation);
    const answer = await work();
    return (await backend.after(operation, answer)) as Answer;
  };
  const watched: SessionStore = {
    atomic: true,
    read: (key, options) => watch('read', key, () => store.read(key, options)),
    patch: (key, change, options) =>
      watch('patch', key, () => {
        backend.lifetimes.push(change.lifetimeMs);
        return store.patch(key, change, options);
      }),
    destroy: (key, ms, options) => watch('destroy', key, () => store.destroy(key, ms, options)),
  };

  const again = defineDriver<SharedOptions>({ name, options: {}, open: () => watched });
  const backend: Backend = {
    driver: again(config),
    again,
    calls: [],
    before: () => undefined,
    after: (_operation, answer) => answer,
    lifetimes: [],
    keys: new Set(),
    async peek(id) {
      const fields = await store.read(await recordKey(id), call);
      return fields && new Map([...fields].filter(([, value]) => isCounted(value)));
    },
    async poke(id, fields) {
      const set = new Map(Object.entries(fields));
      await store.patch(await recordKey(id), { set, unset: [], lifetimeMs: 'never', now: Date.now() }, call);
    },
    evict() {
      store = openMemoryStore({ maxSessions: 1000 });
    },
  };
  return backend;
}

/** A browser: it sends the cookie that it received last. */
export interface Browser<Data extends object> {
  cookie: string | undefined;
  /** The session id in the cookie. */
  readonly id: string;
  open(): Session<Data>;
  /** Runs one request and commits its session. Resolves to the result of `work`. */
  visit<Result>(work: (session: Session<Data>) => Result | Promise<Result>): Promise<Result>;
  /** Commits a session and stores its cookie. */
  take(session: Session<Data>): Promise<string | undefined>;
}

export function createBrowser<Data extends object>(sessions: Sessions<Data>, cookie?: string): Browser<Data> {
  const browser: Browser<Data> = {
    cookie,
    get id() {
      return browser.cookie?.split('=')[1] ?? '';
    },
    open: () => sessions.open(browser.cookie),
    async visit(work) {
      const session = browser.open();
      const result = await work(session);
      await browser.take(session);
      return result;
    },
    async take(session) {
      const setCookie = await session.commit();
      if (setCookie !== undefined) {
        const pair = setCookie.split(';')[0]!;
        browser.cookie = pair.endsWith('=') ? undefined : pair;
      }
      return setCookie;
    },
  };
  return browser;
}
