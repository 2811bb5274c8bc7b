import { resolve } from 'node:path';
import { defineDriver, legacyFiles, valueStore, type Host, type SessionDriver } from '@coatcheck/session-core/driver';
import { fsKinds, type FsDriverConfig } from './options.ts';

/** The driver without Astro. Drivers and processes that use the same directory share their sessions. */
const fs: (config?: FsDriverConfig, host?: Host) => SessionDriver = defineDriver<FsDriverConfig>({
  name: 'session-fs',
  options: fsKinds,
  // A relative directory is resolved when the server runs: the build may run in another directory, or on another machine.
  async open({ directory = '.sessions' }, { timeoutMs }) {
    // Loaded here, because `node:fs` takes milliseconds to load.
    const { openFiles } = await import('./files.ts');
    const backend = await openFiles(resolve(directory), timeoutMs);
    return { ...valueStore(backend), legacySessions: legacyFiles('session-fs') };
  },
});

export default fs;
