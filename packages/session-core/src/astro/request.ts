import type { SessionFields } from '../codec/field-codec.ts';
import type { Snapshot } from '../codec/payload.ts';
import { copyError } from '../contract/errors.ts';
import type { FinalContents } from '../engine/record.ts';

import type { Moment } from '../platform/clock.ts';

/** What drivers remember of one HTTP request while it is under way. */
export interface RequestMemory {
  /** What was read of each session, by driver and id. */
  reads: Map<string, Snapshot>;
  /** Reads that are under way, by driver and id, unless this request wrote to the session since. */
  reading: Map<string, Reading>;
  /** Removals that this request started, by driver and id. */
  removals: Map<string, OwnRemoval>;
  /** Answers the request with an empty 500, unless the answer has begun. */
  fail(): void;
  /** Calls back when the answer has been sent whole. */
  whenAnswered(callback: () => void): void;
}

export interface Reading {
  /** When it was sent. */
  at: Moment;
  fields: Promise<SessionFields | null>;
}

export interface OwnRemoval {
  /** What the session held. */
  held: Promise<FinalContents>;
  /** Whether the request went on with the session under another id; see `Removal`. */
  moved: Promise<boolean>;
  /** Says that the request goes on with the session under another id. */
  onMoved(): void;
}

/** What is needed of Node's `ServerResponse`. */
interface Response {
  headersSent: boolean;
  writableFinished: boolean;
  writeHead(status: number): { end(): unknown };
  once(event: 'finish', listener: () => void): unknown;
}

/** What is needed of Node's `ServerHttp2Stream`. */
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

const STORAGE = Symbol.for('@coatcheck/session-core/requests@2');

/**
 * Gives every request that Node's HTTP servers (1.1 and 2) start from now on an identity, without a line of code in the app. Elsewhere, and for the
 * requests that were under way, `currentRequest()` is undefined.
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
    storage.enterWith({ reads: new Map(), reading: new Map(), removals: new Map(), ...answer });
  // Both are published before the server's own listeners run, in the context in which they run.
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
      // A stream that the browser resets is finished as well.
      whenAnswered: (callback) => {
        const onClose = (): void => void (stream.aborted || callback());
        return void (stream.closed ? onClose() : stream.once('close', onClose));
      },
    });
  });
}

export function currentRequest(): RequestMemory | undefined {
  trackRequests();
  return (globalThis as { [STORAGE]?: RequestStorage })[STORAGE]?.getStore();
}

const forsaken = new WeakMap<object, RequestMemory>();
let isListening = false;

/**
 * Passes the outcome of an operation on, and sees to it that a request which it fails is answered. Astro 6.4 on its Node adapter leaves
 * a request whose session cannot be saved open for ever: the error reaches nobody but the adapter's listener for unhandled rejections,
 * which logs it. Astro 7 answers by itself, and no error gets to our listener.
 */
export async function respondOnFailure<Result>(operation: Promise<Result>): Promise<Result> {
  try {
    return await operation;
  } catch (error) {
    const request = currentRequest();
    if (!request) throw error;
    // Requests that share a read would otherwise share its error, and with it one answer.
    const own = copyError(error);
    forsaken.set(own, request);
    listen();
    throw own;
  }
}

function listen(): void {
  // Without a listener of somebody else's, Node ends the process, and that is not ours to change.
  if (isListening || process.listenerCount('unhandledRejection') === 0) return;
  isListening = true;
  process.on('unhandledRejection', (reason) => {
    if (typeof reason === 'object' && reason !== null) forsaken.get(reason)?.fail();
  });
}
