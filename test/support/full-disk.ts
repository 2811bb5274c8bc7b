import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { newFolder } from './folder.ts';

/** How the disk is limited: the largest size of a file, in kilobytes, or a disk of 512 kB. */
export type Limit = { fileKb: number } | 'disk';

const SCRIPT = fileURLToPath(new URL('meet-full-disk.ts', import.meta.url));

/** Whether this system lets a process mount a disk. Throws in CI, which must allow it. */
export function canMount(): boolean {
  if (spawnSync('unshare', ['-rm', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt']).status === 0) return true;
  if (process.env['CI']) throw new Error('CI must allow `unshare -rm mount`.');
  return false;
}

/**
 * Lets a driver meet a full disk, and returns what happened, one line each.
 *
 * @param runtime the module of the driver's runtime.
 * @param optionsIn the driver's options, for sessions in this directory.
 */
export function onFullDisk(runtime: string, optionsIn: (directory: string) => object, limit: Limit): string[] {
  const directory = join(newFolder(), 'disk');
  mkdirSync(directory);
  const limited =
    limit === 'disk' ? ['unshare', '-rm'] : ['bash', '-c', `ulimit -f ${limit.fileKb}; exec "$@"`, 'bash'];
  const script = [SCRIPT, runtime, JSON.stringify(optionsIn(directory)), directory];
  const [program = '', ...args] = [...limited, process.execPath, ...script, ...(limit === 'disk' ? ['mount'] : [])];
  const { stdout, stderr, status } = spawnSync(program, args, { encoding: 'utf8' });
  if (stderr || status !== 0) throw new Error(`meet-full-disk.ts ended with the status ${status}: ${stderr}`);
  return stdout.trim().split('\n');
}
