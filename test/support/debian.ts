import { execFile } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { mkdir, mkdtemp, readFile, readdir, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** A server program, and the environment variables that it needs. */
export interface Program {
  bin: string;
  env: Record<string, string>;
}

/** Where to find a server program. */
export interface Wanted {
  /** The name of the program on `PATH`. */
  name: string;
  /** The environment variable that names another one. */
  variable: string;
  /** The packages of Debian to unpack if there is none, the main one first. apt adds those that they need. */
  packages: string[];
  /** Packages that the others ask for and that the program does not need. */
  without?: RegExp;
  /** Whether the program refuses to run as root, so that another user runs it, who cannot look into root's home. */
  refusesRoot?: boolean;
  /** Where the program is in the unpacked packages. */
  find(root: string): Promise<string>;
}

/**
 * Finds a server program: the one that the environment variable names, or the installed one. Otherwise, on Debian and Ubuntu, the packages
 * of the distribution are unpacked into the user's cache folder, which needs no root and starts no service.
 */
export async function findProgram(wanted: Wanted): Promise<Program> {
  const named = process.env[wanted.variable];
  if (named) {
    if (!isExecutable(named)) throw new Error(`${wanted.variable} is ${named}, which is no file that can be executed.`);
    return { bin: named, env: {} };
  }
  const onPath = (process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, wanted.name));
  const found = onPath.find(isExecutable);
  if (found) return { bin: found, env: {} };
  // Debian installs some programs outside of `PATH`.
  const installed = await wanted.find('/').catch(() => '');
  if (isExecutable(installed)) return { bin: installed, env: {} };

  const root = await unpacked(wanted);
  const libraries = (await readdir(join(root, 'usr/lib'))).filter((name) => name.includes('-linux-'));
  return {
    bin: await wanted.find(root),
    env: { LD_LIBRARY_PATH: libraries.map((name) => join(root, 'usr/lib', name)).join(delimiter) },
  };
}

/** The folder with the unpacked packages. */
async function unpacked(wanted: Wanted): Promise<string> {
  const release = await readFile('/etc/os-release', 'utf8').catch(() => '');
  const codename = /^VERSION_CODENAME=(\w+)$/m.exec(release)?.[1];
  if (!codename || !onDebian()) throw missing(wanted);

  const home = wanted.refusesRoot && process.getuid?.() === 0 ? '/var/cache' : join(homedir(), '.cache');
  const cache = join(process.env.XDG_CACHE_HOME || home, 'coatcheck');
  const root = join(cache, `${wanted.name}-${codename}-${process.arch}`);
  const isThere = (): Promise<boolean> => wanted.find(root).then(isExecutable, () => false);
  if (await isThere()) return root;

  console.error(`No ${wanted.name} on PATH: unpacking ${codename}'s into ${root}`);
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(`${root}-`);
  try {
    await downloadPackages(wanted, work).catch(async () => {
      // The package lists are missing or out of date.
      await run('apt-get', ['update']);
      await downloadPackages(wanted, work);
    });
    const folder = join(work, 'root');
    for (const file of await readdir(work)) {
      if (file.endsWith('.deb')) await run('dpkg-deb', ['-x', file, folder], { cwd: work });
    }
    await rename(folder, root).catch(async (error: unknown) => {
      // Another process may have done it already.
      if (!(await isThere())) throw error;
    });
  } catch (error) {
    throw missing(wanted, error);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return root;
}

/** The user to run a program as that refuses to run as root. */
export const NOT_ROOT: { uid?: number; gid?: number } = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {};

async function downloadPackages({ packages, without }: Wanted, folder: string): Promise<void> {
  // apt lists the packages that this machine lacks, including libraries.
  const plan = await run('apt-get', ['--simulate', '--no-install-recommends', 'install', packages[0]!], {
    env: { ...process.env, LC_ALL: 'C' },
  });
  const lacking = Array.from(plan.stdout.matchAll(/^Inst (\S+)/gm), (match) => match[1]!);
  const all = new Set([...packages, ...lacking.filter((name) => !without?.test(name))]);
  await run('apt-get', ['download', ...all], { cwd: folder });
}

export function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function onDebian(): boolean {
  return isExecutable('/usr/bin/apt-get') && isExecutable('/usr/bin/dpkg-deb');
}

function missing({ name, variable, packages }: Wanted, cause?: unknown): Error {
  return new Error(
    `There is no ${name}. Install one (apt-get install ${packages[0]}, or with another package manager), or name one with ${variable}.`,
    { cause },
  );
}
