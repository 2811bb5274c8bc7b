import { defineDriver, type Host, type SessionDriver } from '@coatcheck/session-core/driver';
import { memoryKinds, type MemoryDriverConfig } from './options.ts';

/** The driver without Astro. Drivers in one process that have the same options share their sessions. */
const memory: (config?: MemoryDriverConfig, host?: Host) => SessionDriver = defineDriver<MemoryDriverConfig>({
  name: 'session-memory',
  options: memoryKinds,
  // Loaded at the first operation, with `lru-cache`.
  open: async (options) => (await import('./store.ts')).openMemoryStore(options),
});

export default memory;
