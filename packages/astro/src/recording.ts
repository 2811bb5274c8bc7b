import type { AsyncLocalStorage } from 'node:async_hooks';
import type { TracedOperation } from '@coatcheck/session-core';

/** What happened to sessions while one request was served. Contains ids and keys, and no values. */
export interface RecordedRequest {
  method: string;
  path: string;
  /** When it began, in epoch milliseconds. */
  at: number;
  /** The session ids that the request came with and ended with. */
  ids: Set<string>;
  /** The operations on the backend, in the order in which they began. `ms` is missing until the backend has answered. */
  operations: { operation: string; ms?: number; failed?: boolean }[];
  /** What the driver reported, such as `destroyed-write`. */
  events: string[];
  /** The keys that the request has asked Astro's session for, and those that it has set or deleted. */
  reads: Set<string>;
  writes: Set<string>;
}

/** One recording for the process, also if this module is loaded twice: by the integration and by the site. */
interface Recording {
  requests: RecordedRequest[];
  storage?: AsyncLocalStorage<RecordedRequest>;
}

const RECORDING = Symbol.for('@coatcheck/astro/recording@1');

/** The number of requests that are kept. */
const KEPT = 200;

/**
 * Starts to record, for the whole process: from now on, what drivers do belongs to the request that makes them do it. Repeated calls do
 * nothing. Without Node's built-in modules, nothing is recorded.
 */
export function startRecording(): Recording {
  const holder = globalThis as { [RECORDING]?: Recording };
  if (holder[RECORDING]) return holder[RECORDING];
  const recording: Recording = (holder[RECORDING] = { requests: [] });
  const getBuiltin = globalThis.process?.getBuiltinModule;
  const hooks = getBuiltin?.('node:async_hooks');
  const diagnostics = getBuiltin?.('node:diagnostics_channel');
  if (!hooks || !diagnostics?.subscribe) return recording;
  const storage = new hooks.AsyncLocalStorage<RecordedRequest>();
  recording.storage = storage;
  // Astro saves the session after all middleware. Node's servers publish these before it handles the request, in the same async context.
  for (const channel of ['http.server.request.start', 'http2.server.stream.start'])
    diagnostics.subscribe(channel, () => storage.enterWith(emptyRequest()));
  for (const event of EVENTS) {
    diagnostics.subscribe(`coatcheck:${event}`, () => void storage.getStore()?.events.push(event));
  }
  for (const operation of ['read', 'patch', 'destroy']) {
    const started = new WeakMap<object, { at: number; entry: RecordedRequest['operations'][number] }>();
    diagnostics.tracingChannel<unknown, TracedOperation>(`coatcheck:${operation}`).subscribe({
      start(message) {
        const entry = { operation };
        storage.getStore()?.operations.push(entry);
        started.set(message, { at: performance.now(), entry });
      },
      asyncEnd(message) {
        const { at, entry } = started.get(message)!;
        entry.ms = performance.now() - at;
        if (message.error !== undefined) entry.failed = true;
      },
      // The type requires all five handlers.
      end() {},
      asyncStart() {},
      error() {},
    });
  }
  return recording;
}

/** The events that concern one request. */
const EVENTS = ['destroyed-write', 'stale-write', 'unknown-read', 'conflict', 'corrupt-field', 'migrated', 'eviction'];

function emptyRequest(): RecordedRequest {
  return {
    method: '',
    path: '',
    at: Date.now(),
    ids: new Set(),
    operations: [],
    events: [],
    reads: new Set(),
    writes: new Set(),
  };
}

/**
 * Keeps what happens during some work.
 *
 * @param work calls `savesIn` with its session, so that what happens when Astro then saves the session is kept as well.
 */
export function record<Result>(
  about: { method: string; path: string; id: string | undefined },
  work: (request: RecordedRequest, savesIn: (session: object) => void) => Promise<Result>,
): Promise<Result> {
  const { requests, storage } = startRecording();
  const begun = storage?.getStore();
  const request = begun ?? emptyRequest();
  request.method = about.method;
  request.path = about.path;
  if (about.id !== undefined) request.ids.add(about.id);
  requests.push(request);
  if (requests.length > KEPT) requests.shift();
  const savesIn = (session: object): void => {
    if (!storage) return;
    watchKeys(session, storage);
    if (!begun) bindSaving(session, (save) => storage.run(request, save));
  };
  return storage ? storage.run(request, work, request, savesIn) : work(request, savesIn);
}

/**
 * Records the keys of a request from its first use of the session on. Astro keeps the session of a request in an object that is not documented,
 * and creates it when a page first asks for it. Should a version have no such object, the keys of the first request are not recorded: then
 * only `savesIn` finds the methods to watch.
 */
export function watchSessionOf(context: object): void {
  const { storage } = startRecording();
  const state = (context as { [FETCH_STATE]?: { resolve?: unknown } })[FETCH_STATE];
  const resolve = state?.resolve;
  if (!storage || typeof resolve !== 'function') return;
  // Not `context.session`: Astro loses the cookie of a session that was created before a rewrite.
  state!.resolve = (key: unknown): unknown => {
    const value: unknown = resolve.call(state, key);
    if (key === 'session' && typeof value === 'object' && value !== null) watchKeys(value, storage);
    return value;
  };
}

const FETCH_STATE = Symbol.for('astro.fetchState');

/** Records the keys that requests use from now on, by the methods of Astro's sessions. */
function watchKeys(session: object, storage: AsyncLocalStorage<RecordedRequest>): void {
  const methods = Object.getPrototypeOf(session) as Record<string, (this: unknown, ...args: unknown[]) => unknown>;
  if (watched.has(methods)) return;
  watched.add(methods);
  const watch = (name: string, kind: 'reads' | 'writes', keyOf: (key: unknown) => string): void => {
    const method = methods[name]!;
    methods[name] = function (...args) {
      storage.getStore()?.[kind].add(keyOf(args[0]));
      return method.apply(this, args);
    };
  };
  for (const name of ['get', 'has']) watch(name, 'reads', String);
  for (const name of ['set', 'delete']) watch(name, 'writes', String);
  for (const name of ['keys', 'values', 'entries']) watch(name, 'reads', () => 'all keys');
}

const watched = new WeakSet<object>();

/**
 * Lets Astro save a session in the context of its request. Needed in Workers, where nothing tells that a request begins. Astro saves with a
 * method under a symbol that it does not export. Should a version have none, what it saves is not recorded.
 */
function bindSaving(session: object, inContext: (save: () => unknown) => unknown): void {
  const methods = Object.getPrototypeOf(session) as Record<symbol, unknown>;
  for (const name of Object.getOwnPropertySymbols(methods)) {
    const method = methods[name];
    if (typeof method !== 'function') continue;
    Object.defineProperty(session, name, { value: () => inContext(() => method.call(session) as unknown) });
  }
}

/** The requests of a session that asked its backend, the last one first. */
export function requestsOf(id: string): RecordedRequest[] {
  return startRecording()
    .requests.filter(({ ids, operations, events }) => ids.has(id) && operations.length + events.length > 0)
    .toReversed();
}

/** Keeps the requests of a session when its id changes. */
export function follow(id: string, newId: string): void {
  for (const { ids } of requestsOf(id)) ids.add(newId);
}
