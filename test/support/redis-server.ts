import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { findProgram, type Program } from './debian.ts';
import { startJanitor } from './janitor.ts';
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

/** The redis-server to run, and the environment variables that it needs: `REDIS_SERVER_BIN`, or the one on `PATH`, or Debian's. */
export function redisServerBin(): Promise<Program> {
  return findProgram({
    name: 'redis-server',
    variable: 'REDIS_SERVER_BIN',
    packages: ['redis-server', 'redis-tools'],
    find: async (root) => join(root, 'usr/bin/redis-server'),
  });
}

/** The global setup of Vitest: fetches the server once, before concurrent test files would each do so. */
export async function setup(): Promise<void> {
  if (process.env.REDIS_URL) return;
  // Without a server, the tests that need one fail with the reason.
  await redisServerBin().catch(() => {});
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
