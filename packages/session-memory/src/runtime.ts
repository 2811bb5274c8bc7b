import { defineDriver, type Host, type SessionDriver } from '@coatcheck/session-core/driver';
import { memoryKinds, type MemoryDriverConfig } from './options.ts';
import { openMemoryStore } from './store.ts';

/** The driver itself, free of Astro. Drivers of one process with the same limits share their sessions. */
const memory: (config?: MemoryDriverConfig, host?: Host) => SessionDriver = defineDriver<MemoryDriverConfig>({
  name: 'session-memory',
  options: memoryKinds,
  open: openMemoryStore,
});

export default memory;
