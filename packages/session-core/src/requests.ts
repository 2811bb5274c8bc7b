import type { Held } from './engine.ts';
import type { Handed } from './payload.ts';

/** What drivers remember of one HTTP request while it is under way. */
export interface RequestMemory {
  /** The last read of each session, by driver and id. */
  reads: Map<string, Handed>;
  /** Removals that this request started. */
  removals: Promise<Held>[];
}

interface RequestStorage {
  getStore(): RequestMemory | undefined;
}

const STORAGE = Symbol.for('@coatcheck/session-core/requests@1');

/**
 * Gives every request that Node's HTTP server starts from now on an identity, without a line of code in the app. Elsewhere, and for the
 * requests that were under way, `currentRequest()` is undefined.
 */
export function trackRequests(): void {
  const holder = globalThis as { [STORAGE]?: RequestStorage };
  const getBuiltin = globalThis.process?.getBuiltinModule;
  if (holder[STORAGE] || !getBuiltin) return;
  const asyncHooks = getBuiltin('node:async_hooks');
  const diagnostics = getBuiltin('node:diagnostics_channel');
  if (!asyncHooks || !diagnostics?.subscribe) return;
  const storage = new asyncHooks.AsyncLocalStorage<RequestMemory>();
  holder[STORAGE] = storage;
  // Published before the server's own listeners run, in the context in which they run.
  diagnostics.subscribe('http.server.request.start', () => storage.enterWith({ reads: new Map(), removals: [] }));
}

export function currentRequest(): RequestMemory | undefined {
  return (globalThis as { [STORAGE]?: RequestStorage })[STORAGE]?.getStore();
}
