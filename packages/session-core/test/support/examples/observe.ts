import { subscribe } from 'node:diagnostics_channel';
import type { ReportedEvent } from '@coatcheck/session-core';

const events: ReportedEvent[] = [
  'retired-write',
  'stale-write',
  'damaged-field',
  'adopted',
  'eviction',
  'outage',
  'recovery',
];

for (const event of events) {
  subscribe(`coatcheck:${event}`, (message) => console.warn(event, message));
}
