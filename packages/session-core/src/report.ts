/**
 * What a driver did that no caller is told, for whoever listens on `node:diagnostics_channel`:
 *
 * - `coatcheck:retired-write`: a write was dropped because its session had been removed.
 * - `coatcheck:stale-write`: a write was dropped because its session is gone and was read too long ago to be restored.
 * - `coatcheck:damaged-field`: a stored field could not be read and was left out.
 * - `coatcheck:eviction`: a session was dropped for want of room.
 * - `coatcheck:outage` and `coatcheck:recovery`: a backend went away, and came back.
 *
 * Messages are safe to log: they hold the driver's name and nothing of a session.
 */
export type ReportedEvent = 'retired-write' | 'stale-write' | 'damaged-field' | 'eviction' | 'outage' | 'recovery';

export function report(event: ReportedEvent, driver: string): void {
  const channel = diagnostics?.channel(`coatcheck:${event}`);
  if (channel?.hasSubscribers) channel.publish({ driver });
}

// Not imported, so that core also loads where there is no such module.
const diagnostics = globalThis.process?.getBuiltinModule?.('node:diagnostics_channel');
