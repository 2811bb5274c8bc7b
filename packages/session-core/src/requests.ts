import type { SessionFields } from './at-rest.ts';
import type { Held } from './engine.ts';
import { copyError } from './errors.ts';
import type { Handed } from './payload.ts';

/** What drivers remember of one HTTP request while it is under way. */
export interface RequestMemory {
  /** The last read of each session, by driver and id. */
  reads: Map<string, Handed>;
  /** Reads that are under way, by driver and id, unless this request wrote to the session since. */
  reading: Map<string, Reading>;
  /** Removals that this request started, by driver and id. */
  removals: Map<string, Promise<Held>>;
  /** Node's response to it. */
  response: Response;
}

export interface Reading {
  /** When it was sent. */
  at: number;
  fields: Promise<SessionFields | null>;
}

/** What is needed of Node's `ServerResponse`. */
interface Response {
  headersSent: boolean;
  writeHead(status: number): { end(): unknown };
}

interface RequestStorage {
  getStore(): RequestMemory | undefined;
}

const STORAGE = Symbol.for('@coatcheck/session-core/requests@1');

/**
 * Gives every request that Node's HTTP server starts from now on an identity, without a line of code in the app. Elsewhere, and for the
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
  // Published before the server's own listeners run, in the context in which they run.
  diagnostics.subscribe('http.server.request.start', (message) =>
    storage.enterWith({
      reads: new Map(),
      reading: new Map(),
      removals: new Map(),
      response: (message as { response: Response }).response,
    }),
  );
}

export function currentRequest(): RequestMemory | undefined {
  trackRequests();
  return (globalThis as { [STORAGE]?: RequestStorage })[STORAGE]?.getStore();
}

const forsaken = new WeakMap<object, Response>();
let isListening = false;

/**
 * Passes the outcome of an operation on, and sees to it that a request which it fails is answered. Astro 6.4 on its Node adapter leaves
 * a request whose session cannot be saved open for ever: the error reaches nobody but the adapter's listener for unhandled rejections,
 * which logs it. Astro 7 answers by itself, and no error gets to our listener.
 */
export async function orAnswer<Result>(operation: Promise<Result>): Promise<Result> {
  try {
    return await operation;
  } catch (error) {
    const response = currentRequest()?.response;
    if (!response) throw error;
    // Requests that share a read would otherwise share its error, and with it one answer.
    const own = copyError(error);
    forsaken.set(own, response);
    listen();
    throw own;
  }
}

function listen(): void {
  // Without a listener of somebody else's, Node ends the process, and that is not ours to change.
  if (isListening || process.listenerCount('unhandledRejection') === 0) return;
  isListening = true;
  process.on('unhandledRejection', (reason) => {
    const response = typeof reason === 'object' && reason !== null ? forsaken.get(reason) : undefined;
    if (response && !response.headersSent) response.writeHead(500).end();
  });
}
