import { readdir } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { chromium, type Browser } from 'playwright-core';
import { findProgram } from './debian.ts';

/**
 * Starts Chromium without a window. Close it, or dispose of it, when the tests are done.
 *
 * @param hosts addresses of host names, instead of those that the DNS knows.
 */
export async function startChromium(hosts: Record<string, string> = {}): Promise<Browser> {
  const { bin, env } = await findProgram({
    name: 'chromium',
    variable: 'CHROMIUM_BIN',
    packages: ['chromium'],
    find: async (root) => {
      const folder = join(root, 'usr/lib/chromium');
      return (await readdir(folder)).includes('chromium') ? join(folder, 'chromium') : '';
    },
  });
  // A part of PulseAudio lies in a folder of its own.
  const libraries = env['LD_LIBRARY_PATH']?.split(delimiter).flatMap((folder) => [folder, join(folder, 'pulseaudio')]);
  return chromium.launch({
    executablePath: bin,
    env: { ...process.env, ...(libraries && { LD_LIBRARY_PATH: libraries.join(delimiter) }) },
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      `--host-resolver-rules=${Object.entries(hosts)
        .map(([name, address]) => `MAP ${name} ${address}`)
        .join(',')}`,
    ],
  });
}
