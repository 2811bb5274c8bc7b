import { resolve } from 'node:path';
import { defineDriver, valueStore, type Host, type SessionDriver } from '@coatcheck/session-core/driver';
import { legacyFiles, openFiles } from './files.ts';
import { fsKinds, type FsDriverConfig } from './options.ts';

/** The driver itself, free of Astro. Drivers and processes with the same folder share their sessions. */
const fs: (config?: FsDriverConfig, host?: Host) => SessionDriver = defineDriver<FsDriverConfig>({
  name: 'session-fs',
  options: fsKinds,
  // The folder is found here and not when the site is built: that happens in another folder, if not on another machine.
  open: async ({ directory = '.sessions' }, { timeoutMs }) => ({
    ...valueStore(await openFiles(resolve(directory), timeoutMs)),
    legacySessions: legacyFiles,
  }),
});

export default fs;
