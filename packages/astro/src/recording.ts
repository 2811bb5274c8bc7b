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

/** Keeps what happens during some work, and when Astro then saves the session. */
export function record<Result>(
  about: { method: string; path: string; id: string | undefined; session: object | undefined },
  work: (request: RecordedRequest) => Promise<Result>,
): Promise<Result> {
  const { requests, storage } = startRecording();
  const begun = storage?.getStore();
  const request = begun ?? emptyRequest();
  request.method = about.method;
  request.path = about.path;
  if (about.id !== undefined) request.ids.add(about.id);
  requests.push(request);
  if (requests.length > KEPT) requests.shift();
  if (about.session) watchKeys(about.session, request);
  if (!storage) return work(request);
  if (!begun && about.session) bindSaving(about.session, (save) => storage.run(request, save));
  return storage.run(request, work, request);
}

/** Records the keys that a request uses, by the methods of Astro's session. */
function watchKeys(session: object, { reads, writes }: RecordedRequest): void {
  const methods = session as Record<string, (...args: unknown[]) => unknown>;
  const watch = (name: string, keys: Set<string>, keyOf: (key: unknown) => string): void => {
    const method = methods[name]!;
    const watched = (...args: unknown[]): unknown => {
      keys.add(keyOf(args[0]));
      return method.apply(session, args);
    };
    // Astro may run middleware again for the same session, such as for an error page.
    Object.defineProperty(session, name, { value: watched, configurable: true });
  };
  for (const name of ['get', 'has']) watch(name, reads, String);
  for (const name of ['set', 'delete']) watch(name, writes, String);
  for (const name of ['keys', 'values', 'entries']) watch(name, reads, () => 'all keys');
}

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
