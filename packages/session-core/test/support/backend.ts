import type { Sessions, Session } from '@coatcheck/session-core';
import {
  defineDriver,
  recordKey,
  type Fields,
  type Lifetime,
  type SessionStore,
  type SharedOptions,
  type SessionDriver,
} from '@coatcheck/session-core/driver';
import { openMemoryStore } from '../../../session-memory/src/store.ts';

export type Operation = 'read' | 'patch' | 'destroy';

/** The memory backend, which tells how often it was asked, and lets a test step in. */
export interface Backend {
  driver: SessionDriver;
  /** What the store was asked so far; a test empties it. */
  calls: Operation[];
  /** Runs before the store is asked; what it throws, the operation fails with. */
  before: (operation: Operation) => unknown;
  /** What the store answers after it has done its work: by default, what it found. */
  after: (operation: Operation, answer: unknown) => unknown;
  /** How long each change said that its record has to live. */
  lifetimes: Lifetime[];
  /** Every key that the store was asked about. */
  keys: Set<string>;
  /** What is stored under an id, past the counting. */
  peek(id: string): Promise<Fields | null>;
  /** Writes fields as they are, past the counting and past every check. */
  poke(id: string, fields: Record<string, string>): Promise<void>;
  /** A driver with other options on the same records. */
  again(config: SharedOptions): SessionDriver;
  /** Loses every record, as a backend that is full does with some. */
  evict(): void;
}

let backends = 0;

export function createBackend(config: SharedOptions = {}): Backend {
  // Drivers of one name and configuration share a store.
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
    peek: (id) => store.read(recordKey(id), call),
    async poke(id, fields) {
      const set = new Map(Object.entries(fields));
      await store.patch(recordKey(id), { set, unset: [], lifetimeMs: 'never', now: Date.now() }, call);
    },
    evict() {
      store = openMemoryStore({ maxSessions: 1000 });
    },
  };
  return backend;
}

/** What a browser does: it sends the cookie that it was given last. */
export interface Browser<Data extends object> {
  cookie: string | undefined;
  /** The id in the cookie. */
  readonly id: string;
  open(): Session<Data>;
  /** One request, committed; resolves to what the work resolves to. */
  visit<Result>(work: (session: Session<Data>) => Result | Promise<Result>): Promise<Result>;
  /** Commits, and takes the cookie. */
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
