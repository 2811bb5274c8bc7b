import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, closeSync, constants, openSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { homedir, tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { freePort } from './ports.ts';

/** A redis-server on 127.0.0.1. It is stopped, and its data removed, when the process that started it ends, even if it is killed. */
export interface RedisServer extends AsyncDisposable {
  readonly port: number;
  readonly url: string;
  /** The id of the server process; undefined if it is not running. */
  readonly pid: number | undefined;
  /** Shuts it down cleanly. It keeps its data for `restart()`. */
  stop(): Promise<void>;
  /** Kills it (SIGKILL), which resets connections. It keeps acknowledged writes for `restart()`. */
  kill(): Promise<void>;
  /** Freezes it (SIGSTOP): connections stay open, and new ones are accepted, but there are no replies. */
  freeze(): void;
  /** Ends a `freeze()`. Commands that were sent in the meantime are executed. */
  thaw(): void;
  /** Stops it if it runs, and starts it on the same port with the same data. */
  restart(): Promise<void>;
}

export interface RedisOptions {
  /** @default a free port */
  port?: number;
  /** More arguments of redis-server. They override ours (`--appendonly yes`, `--save ''`). */
  args?: string[];
}

const run = promisify(execFile);

let ownServer: Promise<RedisServer> | undefined;

/** The URL of a Redis for tests that can share one: `REDIS_URL` if it is set, or a server that this process starts once. */
export async function redisUrl(): Promise<string> {
  if (process.env.REDIS_URL) return process.env.REDIS_URL;
  ownServer ??= startRedis();
  return (await ownServer).url;
}

/** Resolves when the server answers. */
export async function startRedis(options: RedisOptions = {}): Promise<RedisServer> {
  const { bin, env } = await redisServerBin();
  const port = await freePort(options.port);
  const dir = await mkdtemp(join(tmpdir(), 'coatcheck-redis-'));
  const janitor = startJanitor(dir);
  // The configuration file is empty. A Sentinel (`args: ['--sentinel']`) needs it to store its state.
  const configFile = join(dir, 'redis.conf');
  await writeFile(configFile, '');
  let child: ChildProcess | undefined;

  async function start(): Promise<void> {
    // The output goes to a file, because a pipe would keep this process alive.
    const log = openSync(join(dir, 'redis.log'), 'w');
    const args = ['--port', `${port}`, '--bind', '127.0.0.1', '--dir', dir, '--save', '', '--appendonly', 'yes'];
    const started = spawn(bin, [configFile, ...args, ...(options.args ?? [])], {
      env: { ...process.env, ...env },
      stdio: ['ignore', log, log],
    });
    closeSync(log);
    child = started;
    started.once('error', () => {});
    started.once('exit', () => {
      if (child === started) child = undefined;
      janitor.watch(child?.pid);
    });
    started.unref();
    janitor.watch(started.pid);

    // `performance.now()` is used because tests move `Date`.
    const deadline = performance.now() + 90_000;
    while (!(await answers(port))) {
      if (child === started && started.pid !== undefined && performance.now() < deadline) {
        await sleep(5);
        continue;
      }
      started.kill('SIGKILL');
      throw new Error(`${bin} did not start on port ${port}:\n${await readFile(join(dir, 'redis.log'), 'utf8')}`);
    }
  }

  async function end(signal: NodeJS.Signals): Promise<void> {
    if (!child) return;
    const exit = once(child, 'exit');
    child.kill(signal);
    child.kill('SIGCONT');
    child.ref();
    await exit;
  }

  const server: RedisServer = {
    port,
    url: `redis://127.0.0.1:${port}`,
    get pid() {
      return child?.pid;
    },
    stop: () => end('SIGTERM'),
    kill: () => end('SIGKILL'),
    freeze: () => void child?.kill('SIGSTOP'),
    thaw: () => void child?.kill('SIGCONT'),
    async restart() {
      await end('SIGTERM');
      await start();
    },
    async [Symbol.asyncDispose]() {
      await end('SIGKILL');
      await janitor.finish();
    },
  };

  try {
    await start();
  } catch (error) {
    await janitor.finish();
    throw error;
  }
  return server;
}

/**
 * The redis-server to run, and the environment variables that it needs: `REDIS_SERVER_BIN`, or the one on `PATH`. Otherwise, on Debian and
 * Ubuntu, the packages of the distribution are unpacked into the user's cache folder, which needs no root and starts no service.
 */
export async function redisServerBin(): Promise<{ bin: string; env: Record<string, string> }> {
  const named = process.env.REDIS_SERVER_BIN;
  if (named) {
    if (!isExecutable(named)) throw new Error(`REDIS_SERVER_BIN is ${named}, which is no file that can be executed.`);
    return { bin: named, env: {} };
  }
  const onPath = (process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, 'redis-server'));
  const found = onPath.find(isExecutable);
  if (found) return { bin: found, env: {} };

  const root = await unpackedRedis();
  const libraries = (await readdir(join(root, 'usr/lib'))).filter((name) => name.includes('-linux-'));
  return {
    bin: join(root, 'usr/bin/redis-server'),
    env: { LD_LIBRARY_PATH: libraries.map((name) => join(root, 'usr/lib', name)).join(delimiter) },
  };
}

/** The global setup of Vitest: fetches the server once, before concurrent test files would each do so. */
export async function setup(): Promise<void> {
  if (process.env.REDIS_URL) return;
  // Without a server, the tests that need one fail with the reason.
  await redisServerBin().catch(() => {});
}

async function unpackedRedis(): Promise<string> {
  const release = await readFile('/etc/os-release', 'utf8').catch(() => '');
  const codename = /^VERSION_CODENAME=(\w+)$/m.exec(release)?.[1];
  if (!codename || !onDebian()) throw missingRedis();

  const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'coatcheck');
  const root = join(cache, `redis-server-${codename}-${process.arch}`);
  if (isExecutable(join(root, 'usr/bin/redis-server'))) return root;

  console.error(`No redis-server on PATH: unpacking ${codename}'s into ${root}`);
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(`${root}-`);
  try {
    await downloadPackages(work).catch(async () => {
      // The package lists are missing or out of date.
      await run('apt-get', ['update']);
      await downloadPackages(work);
    });
    const unpacked = join(work, 'root');
    for (const file of await readdir(work)) {
      if (file.endsWith('.deb')) await run('dpkg-deb', ['-x', file, unpacked], { cwd: work });
    }
    await rename(unpacked, root).catch((error: unknown) => {
      // Another process may have done it already.
      if (!isExecutable(join(root, 'usr/bin/redis-server'))) throw error;
    });
  } catch (error) {
    throw missingRedis(error);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return root;
}

async function downloadPackages(folder: string): Promise<void> {
  // apt lists the packages that this machine lacks, including libraries.
  const plan = await run('apt-get', ['--simulate', '--no-install-recommends', 'install', 'redis-server'], {
    env: { ...process.env, LC_ALL: 'C' },
  });
  const lacking = Array.from(plan.stdout.matchAll(/^Inst (\S+)/gm), (match) => match[1]!);
  await run('apt-get', ['download', ...new Set(['redis-server', 'redis-tools', ...lacking])], { cwd: folder });
}

/**
 * A shell that waits for this process to end, kills the server and removes its folder: no exit handler runs when a test
 * runner kills its workers.
 */
function startJanitor(dir: string) {
  const script = 'while read -r next; do pid=$next; done; test -z "$pid" || kill -9 "$pid"; rm -rf "$1"';
  const shell = spawn('sh', ['-c', script, 'sh', dir], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
  const exit = once(shell, 'exit');
  shell.unref();
  return {
    watch: (pid: number | undefined) => void shell.stdin.write(`${pid ?? ''}\n`),
    async finish() {
      shell.ref();
      shell.stdin.end();
      await exit;
    },
  };
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write('PING\r\n'));
    socket.setTimeout(1000, () => socket.destroy());
    socket.once('data', (reply) => {
      // Any other error is a reply too: a server that requires a password is ready.
      resolve(!reply.toString().startsWith('-LOADING'));
      socket.destroy();
    });
    socket.once('error', () => {});
    socket.once('close', () => resolve(false));
  });
}

function isExecutable(file: string): boolean {
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

function missingRedis(cause?: unknown): Error {
  return new Error(
    'There is no redis-server. Install one (apt-get install redis-server, brew install redis, ...), or name one with ' +
      'REDIS_SERVER_BIN, or a running one with REDIS_URL.',
    { cause },
  );
}
