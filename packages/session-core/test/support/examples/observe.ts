import { subscribe } from 'node:diagnostics_channel';
import type { ReportedEvent } from '@coatcheck/session-core';

const events: ReportedEvent[] = [
  'destroyed-write',
  'stale-write',
  'unknown-read',
  'conflict',
  'corrupt-field',
  'migrated',
  'eviction',
  'outage',
  'recovery',
];

for (const event of events) {
  subscribe(`coatcheck:${event}`, (message) => console.warn(event, message));
}
