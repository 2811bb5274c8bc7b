import type { SessionFields } from '../codec/field-codec.ts';
import { copyError } from '../contract/errors.ts';
import type { FinalContents } from '../engine/record.ts';

import type { Moment } from '../platform/clock.ts';
import type { ReadResult, Snapshot } from './changes.ts';

/** What drivers remember about one HTTP request while it is being served. Keys of the maps identify a driver and a session id. */
export interface RequestMemory {
  /** The snapshot of each session that the request has read. */
  reads: Map<string, Snapshot>;
  /** What each read has returned, by the mark of its payload. */
  results: Map<string, ReadResult>;
  /** Reads in flight. A read is removed early when the request writes to the session. */
  reading: Map<string, Reading>;
  /** Removals that the request started. */
  removals: Map<string, OwnRemoval>;
  /** Answers the request with an empty 500, unless the response has started. */
  fail(): void;
  /** Calls back once the response has been sent completely. Never calls back when the browser has canceled the request. */
  whenAnswered(callback: () => void): void;
}

/** A read in flight. */
export interface Reading {
  /** When the read was sent. */
  at: Moment;
  fields: Promise<SessionFields | null>;
}

/** A removal that the current request started. */
export interface OwnRemoval {
  /** The last contents of the session. */
  contents: Promise<FinalContents>;
  /** Whether the removal was part of a regeneration; see `Removal`. */
  regenerated: Promise<boolean>;
  /** Records that the request saves the session under a new id. */
  markRegenerated(): void;
}

/** The part of Node's `ServerResponse` that is used here. */
interface Response {
  headersSent: boolean;
  writableFinished: boolean;
  writeHead(status: number): { end(): unknown };
  once(event: 'finish', listener: () => void): unknown;
}

/** The part of Node's `ServerHttp2Stream` that is used here. */
interface Http2Stream {
  headersSent: boolean;
  aborted: boolean;
  closed: boolean;
  respond(headers: { ':status': number }, options: { endStream: true }): void;
  once(event: 'close', listener: () => void): unknown;
}

interface RequestStorage {
  getStore(): RequestMemory | undefined;
}

const STORAGE = Symbol.for('@coatcheck/session-core/requests@3');

/**
 * Gives an identity to every request that Node's HTTP servers (1.1 and 2) start to serve from now on. The app needs no code for this. For
 * earlier requests, and on other servers, `currentRequest()` returns undefined.
 */
function trackRequests(): void {
  const holder = globalThis as { [STORAGE]?: RequestStorage };
  const getBuiltin = globalThis.process?.getBuiltinModule;
  if (holder[STORAGE] || !getBuiltin) return;
  const asyncHooks = getBuiltin('node:async_hooks');
  const diagnostics = getBuiltin('node:diagnostics_channel');
  if (!asyncHooks || !diagnostics?.subscribe) return;
  const storage = new asyncHooks.AsyncLocalStorage<RequestMemory>();
  holder[STORAGE] = storage;
  const begin = (answer: Pick<RequestMemory, 'fail' | 'whenAnswered'>): void =>
    storage.enterWith({ reads: new Map(), results: new Map(), reading: new Map(), removals: new Map(), ...answer });
  // Node publishes both messages before it calls the server's own listeners, and in the same async context.
  diagnostics.subscribe('http.server.request.start', (message) => {
    const { response } = message as { response: Response };
    begin({
      fail: () => void (response.headersSent || response.writeHead(500).end()),
      whenAnswered: (callback) => void (response.writableFinished ? callback() : response.once('finish', callback)),
    });
  });
  diagnostics.subscribe('http2.server.stream.start', (message) => {
    const { stream } = message as { stream: Http2Stream };
    begin({
      fail: () => void (stream.headersSent || stream.respond({ ':status': 500 }, { endStream: true })),
      // `close` and not `finish`, because a stream also finishes when the browser resets it. After a reset, `aborted` is true.
      whenAnswered: (callback) => {
        const onClose = (): void => void (stream.aborted || callback());
        return void (stream.closed ? onClose() : stream.once('close', onClose));
      },
    });
  });
}

/** The memory of the current request; undefined when the request has no identity. */
export function currentRequest(): RequestMemory | undefined {
  trackRequests();
  return (globalThis as { [STORAGE]?: RequestStorage })[STORAGE]?.getStore();
}

/** Errors that may leave their request unanswered. */
const unanswered = new WeakMap<object, RequestMemory>();
let isListening = false;

/**
 * Returns the result of an operation, and makes sure that its request is answered if it fails. When a session cannot be saved, Astro 6.4 on
 * its Node adapter never answers the request: the error becomes an unhandled rejection, which the adapter only logs. This function then
 * answers with an empty 500. Astro 7 answers by itself, so the error never becomes an unhandled rejection.
 */
export async function respondOnFailure<Result>(operation: Promise<Result>): Promise<Result> {
  try {
    return await operation;
  } catch (error) {
    const request = currentRequest();
    if (!request) throw error;
    // Requests may share a read and its error. Each needs its own copy, because the error identifies the request to answer.
    const own = copyError(error);
    unanswered.set(own, request);
    listen();
    throw own;
  }
}

function listen(): void {
  // Without any listener, an unhandled rejection ends the process. Our listener would change that, so add it only if there is another one.
  if (isListening || process.listenerCount('unhandledRejection') === 0) return;
  isListening = true;
  process.on('unhandledRejection', (reason) => {
    if (typeof reason === 'object' && reason !== null) unanswered.get(reason)?.fail();
  });
}
