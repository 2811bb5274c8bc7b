/**
 * What a driver did that no caller is told, for whoever listens on `node:diagnostics_channel`:
 *
 * - `coatcheck:destroyed-write`: a write was dropped because its session had been removed.
 * - `coatcheck:stale-write`: a write was dropped because its session is gone and was read too long ago to be restored.
 * - `coatcheck:conflict`: an `update` met another's change, and is made again.
 * - `coatcheck:corrupt-field`: a stored field could not be read and was left out.
 * - `coatcheck:migrated`: a session was taken over from the driver that was there before.
 * - `coatcheck:eviction`: a session was dropped for want of room.
 * - `coatcheck:outage` and `coatcheck:recovery`: a backend went away, and came back.
 *
 * Messages are safe to log: they hold the driver's name and nothing of a session.
 */
export type ReportedEvent =
  | 'destroyed-write'
  | 'stale-write'
  | 'conflict'
  | 'corrupt-field'
  | 'migrated'
  | 'eviction'
  | 'outage'
  | 'recovery';

export function report(event: ReportedEvent, driver: string): void {
  const channel = diagnostics?.channel(`coatcheck:${event}`);
  if (channel?.hasSubscribers) channel.publish({ driver });
}

/** What subscribers of `tracing:coatcheck:<operation>:*` are given. Safe to log. */
export interface TracedOperation {
  /** The package that speaks, such as `session-redis`. */
  driver: string;
  /** What it asks its backend to do. */
  operation: TraceableOperation;
  /** A `SessionDriverError`, once the operation has failed. */
  error?: unknown;
}

export type TraceableOperation = 'read' | 'patch' | 'destroy' | 'sweep';

/**
 * Runs an operation as Node's `diagnostics_channel.tracingChannel('coatcheck:<operation>')` wants it: `start` and `end` around what is
 * done at once, `asyncStart` and `asyncEnd` when it is over, `error` before that when it has failed. Nothing is told of what was read.
 */
export function trace<Result>(
  operation: TraceableOperation,
  driver: string,
  work: () => Promise<Result>,
): Promise<Result> {
  const channel = channels?.[operation];
  if (!channel?.hasSubscribers) return work();
  let working: Promise<Result> | undefined;
  const told: TracedOperation = { driver, operation };
  // The channel would show the result.
  const tracing = channel.tracePromise(() => (working = work()).then(() => undefined), told);
  return tracing.then(() => working!);
}

// Not imported, so that core also loads where there is no such module.
const diagnostics = globalThis.process?.getBuiltinModule?.('node:diagnostics_channel');

// Made once: that takes longer than many an operation.
const channels = diagnostics && {
  read: diagnostics.tracingChannel('coatcheck:read'),
  patch: diagnostics.tracingChannel('coatcheck:patch'),
  destroy: diagnostics.tracingChannel('coatcheck:destroy'),
  sweep: diagnostics.tracingChannel('coatcheck:sweep'),
};
