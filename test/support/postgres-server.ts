import { execFile, execFileSync, spawn, type ChildProcess, type SpawnOptions } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, closeSync, openSync } from 'node:fs';
import { mkdtemp, readFile, readdir, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Client } from 'pg';
import { findProgram, NOT_ROOT, type Program } from './debian.ts';
import { startJanitor } from './janitor.ts';
import { freePort } from './ports.ts';

const run = promisify(execFile);

/** A PostgreSQL server on 127.0.0.1. It is stopped, and its data removed, when the process that started it ends, even if it is killed. */
export interface PostgresServer extends AsyncDisposable {
  readonly port: number;
  /** The URL of the database `postgres`, as a superuser without a password. */
  readonly url: string;
  /** Runs statements as the superuser, and resolves to the rows of the last one. `url` names another database or user. */
  query(sql: string, values?: unknown[], url?: string): Promise<Record<string, unknown>[]>;
  /** Creates an empty database, and resolves to its URL. */
  createDatabase(): Promise<string>;
  /** Shuts it down, and closes all connections. It keeps its data for `restart()`. */
  stop(): Promise<void>;
  /** Kills it and all its processes (SIGKILL). It keeps committed writes for `restart()`. */
  kill(): Promise<void>;
  /** Freezes it and all its processes (SIGSTOP): connections stay open, but there are no replies. */
  freeze(): void;
  /** Ends a `freeze()`. */
  thaw(): void;
  /** Stops it if it runs, and starts it on the same port with the same data. */
  restart(): Promise<void>;
}

export interface PostgresOptions {
  /** @default a free port */
  port?: number;
  /** Settings, such as `max_connections`. */
  settings?: Record<string, string | number>;
  /** Starts a hot standby that replicates this server. `SELECT pg_promote()` makes it a primary. */
  standbyOf?: PostgresServer;
  /** New tables are on a disk of so many megabytes of its own, so that they can fill it. Needs root. */
  tableDiskMb?: number;
}

let ownServer: Promise<PostgresServer> | undefined;

/** A server for tests that can share one. This process starts it once. */
export function sharedPostgres(): Promise<PostgresServer> {
  return (ownServer ??= startPostgres());
}

/** Resolves when the server answers. */
export async function startPostgres(options: PostgresOptions = {}): Promise<PostgresServer> {
  const { port: wanted, settings = {}, standbyOf, tableDiskMb } = options;
  const { bin, env: libraries } = await postgresBin();
  const env = { ...process.env, ...libraries, LC_ALL: 'C' };
  const port = await freePort(wanted);
  const dir = await mkdtemp(join(tmpdir(), 'coatcheck-postgres-'));
  if (NOT_ROOT.uid !== undefined) chownSync(dir, NOT_ROOT.uid, NOT_ROOT.gid!);
  const janitor = startJanitor(dir);
  const data = join(dir, 'data');
  const tables = join(dir, 'tables');
  let child: ChildProcess | undefined;

  async function start(): Promise<void> {
    // The output goes to a file, because a pipe would keep this process alive.
    const log = openSync(join(dir, 'postgres.log'), 'w');
    // The operating system keeps what a killed process has written, so the tests do not need `fsync`.
    const all = { listen_addresses: '127.0.0.1', unix_socket_directories: '', fsync: 'off', ...settings };
    const args = [
      '-D',
      data,
      '-p',
      `${port}`,
      ...Object.entries(all).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
    ];
    const how: SpawnOptions = { env, stdio: ['ignore', log, log], cwd: dir };
    const started = tableDiskMb
      ? spawn('unshare', ['--mount', 'sh', '-c', withDisk(tables, tableDiskMb), bin, ...args], how)
      : spawn(bin, args, { ...how, ...NOT_ROOT });
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
    while (!(await answers(url))) {
      if (child === started && started.pid !== undefined && performance.now() < deadline) {
        await sleep(10);
        continue;
      }
      started.kill('SIGKILL');
      throw new Error(`${bin} did not start on port ${port}:\n${await readFile(join(dir, 'postgres.log'), 'utf8')}`);
    }
  }

  // Its processes are in process groups of their own.
  const signalAll = (signal: NodeJS.Signals): void => {
    if (child?.pid === undefined) return;
    for (const pid of [child.pid, ...childrenOf(child.pid)]) {
      try {
        process.kill(pid, signal);
      } catch {
        // It has just ended.
      }
    }
  };

  async function end(signal: NodeJS.Signals): Promise<void> {
    if (!child) return;
    const exit = once(child, 'exit');
    // Thawed first, because its processes must see the signal. SIGINT is a fast shutdown: it does not wait for clients.
    if (signal === 'SIGKILL') signalAll('SIGKILL');
    else {
      signalAll('SIGCONT');
      child.kill(signal);
    }
    child.ref();
    await exit;
  }

  const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
  let databases = 0;

  const server: PostgresServer = {
    port,
    url,
    query: async (sql, values, where = url) => {
      await using client = await connected(where);
      const result = await client.query(sql, values);
      return ([result].flat().at(-1)?.rows ?? []) as Record<string, unknown>[];
    },
    async createDatabase() {
      const name = `test${(databases += 1)}`;
      await server.query(`CREATE DATABASE ${name}`);
      return `postgres://postgres@127.0.0.1:${port}/${name}`;
    },
    stop: () => end('SIGINT'),
    kill: () => end('SIGKILL'),
    freeze: () => signalAll('SIGSTOP'),
    thaw: () => signalAll('SIGCONT'),
    async restart() {
      await end('SIGINT');
      await start();
    },
    async [Symbol.asyncDispose]() {
      await end('SIGKILL');
      await janitor.finish();
    },
  };

  try {
    const template = process.env[TEMPLATE];
    if (standbyOf) await copyServer(standbyOf, data, dir);
    else if (template) await run('cp', ['-a', template, data]);
    else await createData(data, dir);
    await start();
    if (tableDiskMb) {
      await server.query(`CREATE TABLESPACE small LOCATION '${tables}'`);
      await server.query('ALTER DATABASE postgres SET default_tablespace = small');
    }
  } catch (error) {
    await janitor.finish();
    throw error;
  }
  return server;
}

/** The `postgres` to run, and the environment variables that it needs: `POSTGRES_BIN`, or the one on `PATH`, or Debian's. */
export function postgresBin(): Promise<Program> {
  return findProgram({
    name: 'postgres',
    variable: 'POSTGRES_BIN',
    packages: ['postgresql'],
    refusesRoot: true,
    // The compiler for long queries is ten times the size of the server.
    without: /llvm|libz3|^(?:sysstat|perl|ssl-cert)/,
    find: async (root) => {
      const versions = join(root, 'usr/lib/postgresql');
      const [version] = await readdir(versions);
      return join(versions, version!, 'bin/postgres');
    },
  });
}

/** The global setup of Vitest: fetches the server once, before concurrent test files would each do so. */
export async function setup(): Promise<() => Promise<void>> {
  const dir = await newDataFolder();
  // Copying the data of a new server takes a tenth of the time of creating it.
  process.env[TEMPLATE] = join(dir, 'data');
  // Without a server, the tests that need one fail with the reason.
  await createData(process.env[TEMPLATE], dir).catch(() => delete process.env[TEMPLATE]);
  return () => rm(dir, { recursive: true, force: true });
}

/** The environment variable that names the data of a new server. */
const TEMPLATE = 'COATCHECK_POSTGRES_TEMPLATE';

/** A new folder that a server may write to. */
async function newDataFolder(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'coatcheck-postgres-'));
  if (NOT_ROOT.uid !== undefined) chownSync(dir, NOT_ROOT.uid, NOT_ROOT.gid!);
  return dir;
}

/** Creates the data of a new server. */
async function createData(data: string, dir: string): Promise<void> {
  const args = ['-D', data, '-U', 'postgres', '--auth=trust', '--no-sync', '--encoding=UTF8', '--locale=C'];
  await runTool('initdb', args, dir);
}

/** Copies the data of a running server, for a standby. */
async function copyServer({ port }: PostgresServer, data: string, dir: string): Promise<void> {
  const from = ['-h', '127.0.0.1', '-p', `${port}`, '-U', 'postgres'];
  await runTool('pg_basebackup', [...from, '-D', data, '--write-recovery-conf', '--checkpoint=fast', '--no-sync'], dir);
}

/** Runs a program that comes with the server. */
async function runTool(name: string, args: string[], dir: string): Promise<void> {
  const { bin, env } = await postgresBin();
  const tool = join(dirname(await realpath(bin)), name);
  await run(tool, args, { env: { ...process.env, ...env, LC_ALL: 'C' }, ...NOT_ROOT, cwd: dir });
}

/** A shell script that mounts a small disk, which only the server sees, and becomes the server. */
function withDisk(folder: string, mb: number): string {
  const { uid, gid } = NOT_ROOT;
  if (uid === undefined) throw new Error('Only root can start a server with a small disk for its tables.');
  return `mkdir '${folder}' && mount -t tmpfs -o size=${mb}m,uid=${uid},gid=${gid},mode=700 tmpfs '${folder}' &&
    exec setpriv --reuid=${uid} --regid=${gid} --clear-groups "$0" "$@"`;
}

function childrenOf(parent: number): number[] {
  const processes = execFileSync('ps', ['-A', '-o', 'pid=,ppid='], { encoding: 'utf8' }).trim().split('\n');
  const pairs = processes.map((line) => line.trim().split(/\s+/).map(Number));
  return pairs.flatMap(([pid, ppid]) => (ppid === parent ? [pid!] : []));
}

async function connected(url: string): Promise<Client & AsyncDisposable> {
  const client = new Client({ connectionString: url });
  client.on('error', () => {});
  await client.connect();
  return Object.assign(client, { [Symbol.asyncDispose]: () => client.end() });
}

async function answers(url: string): Promise<boolean> {
  try {
    await using _client = await connected(url);
    return true;
  } catch {
    return false;
  }
}
