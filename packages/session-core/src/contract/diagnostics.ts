/**
 * The events that a driver publishes on Node's `diagnostics_channel`. No return value or error reports them to the caller.
 *
 * - `coatcheck:destroyed-write`: a write was dropped because the session had been destroyed.
 * - `coatcheck:stale-write`: a write was dropped because the session is missing and was read too long ago to be restored.
 * - `coatcheck:unknown-read`: a session was saved as a whole, because the driver could not find out what the request had read.
 * - `coatcheck:conflict`: an `update` found that the value had been changed by another writer, and is retried.
 * - `coatcheck:corrupt-field`: a stored field could not be read and was left out.
 * - `coatcheck:migrated`: a legacy session was migrated.
 * - `coatcheck:eviction`: a session was evicted because the store is full.
 * - `coatcheck:outage` and `coatcheck:recovery`: the backend stopped answering, and answers again.
 *
 * Messages are safe to log: they contain the driver's name and no session data.
 */
export type ReportedEvent =
  | 'destroyed-write'
  | 'stale-write'
  | 'unknown-read'
  | 'conflict'
  | 'corrupt-field'
  | 'migrated'
  | 'eviction'
  | 'outage'
  | 'recovery';

/**
 * Publishes an event on the channel `coatcheck:<event>`. Does nothing without subscribers, or where the runtime has no
 * `node:diagnostics_channel`.
 *
 * @param driver the driver's name, such as `session-redis`. It is the only content of the message.
 */
export function report(event: ReportedEvent, driver: string): void {
  const channel = diagnostics?.channel(`coatcheck:${event}`);
  if (channel?.hasSubscribers) channel.publish({ driver });
}

/** The message that subscribers of `tracing:coatcheck:<operation>:*` receive. Safe to log. */
export interface TracedOperation {
  /** The driver's name, such as `session-redis`. */
  driver: string;
  /** The operation on the backend. */
  operation: TraceableOperation;
  /** A `SessionDriverError` after the operation has failed; absent otherwise. */
  error?: unknown;
}

/** The operations that can be traced. */
export type TraceableOperation = 'read' | 'patch' | 'destroy' | 'sweep';

/**
 * Runs an operation and publishes its progress on Node's `diagnostics_channel.tracingChannel('coatcheck:<operation>')`: `start` and `end`
 * around the synchronous part, `asyncStart` and `asyncEnd` when it has settled, and `error` before those when it has failed. The messages
 * never contain the result.
 */
export function trace<Result>(
  operation: TraceableOperation,
  driver: string,
  work: () => Promise<Result>,
): Promise<Result> {
  const channel = channels?.[operation];
  if (!channel?.hasSubscribers) return work();
  let pending: Promise<Result> | undefined;
  const message: TracedOperation = { driver, operation };
  // A traced promise publishes what it resolves to. So the one traced resolves to undefined: the result is session data.
  const tracing = channel.tracePromise(() => (pending = work()).then(() => undefined), message);
  return tracing.then(() => pending!);
}

// Not a static import, so that this module also loads in runtimes without `node:diagnostics_channel`.
const diagnostics = globalThis.process?.getBuiltinModule?.('node:diagnostics_channel');

// Created once, because creating a channel takes longer than some operations.
const channels = diagnostics && {
  read: diagnostics.tracingChannel('coatcheck:read'),
  patch: diagnostics.tracingChannel('coatcheck:patch'),
  destroy: diagnostics.tracingChannel('coatcheck:destroy'),
  sweep: diagnostics.tracingChannel('coatcheck:sweep'),
};
