import { spawn } from 'node:child_process';
import { chmodSync, closeSync, openSync } from 'node:fs';
import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { findProgram, NOT_ROOT } from './debian.ts';
import { startJanitor } from './janitor.ts';
import { freePort } from './ports.ts';

/** A PgBouncer in transaction mode in front of a server on 127.0.0.1. */
export interface PgBouncer extends AsyncDisposable {
  readonly port: number;
}

/** Resolves when it accepts connections. It has two connections to each database. */
export async function startPgBouncer(target: number): Promise<PgBouncer> {
  const { bin, env } = await findProgram({
    name: 'pgbouncer',
    variable: 'PGBOUNCER_BIN',
    packages: ['pgbouncer'],
    refusesRoot: true,
    find: async (root) => join(root, 'usr/sbin/pgbouncer'),
  });
  const port = await freePort();
  const dir = await mkdtemp(join(tmpdir(), 'coatcheck-pgbouncer-'));
  // So that the other user can read the configuration.
  chmodSync(dir, 0o755);
  const janitor = startJanitor(dir);
  const config = join(dir, 'pgbouncer.ini');
  await writeFile(
    config,
    `[databases]
* = host=127.0.0.1 port=${target}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = trust
auth_file = ${join(dir, 'users.txt')}
pool_mode = transaction
default_pool_size = 2
max_client_conn = 200
`,
  );
  await writeFile(join(dir, 'users.txt'), '"postgres" ""\n');
  const logFile = join(dir, 'pgbouncer.log');
  const log = openSync(logFile, 'w');
  const child = spawn(bin, [config], { env: { ...process.env, ...env }, stdio: ['ignore', log, log], ...NOT_ROOT });
  closeSync(log);
  child.once('error', () => undefined);
  child.unref();
  janitor.watch(child.pid);
  const deadline = performance.now() + 60_000;
  while (!(await accepts(port))) {
    if (child.exitCode === null && child.pid !== undefined && performance.now() < deadline) {
      await sleep(10);
      continue;
    }
    const output = await readFile(logFile, 'utf8');
    await janitor.finish();
    throw new Error(`${bin} did not start:\n${output}`);
  }
  return { port, [Symbol.asyncDispose]: () => janitor.finish() };
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => resolve(true));
    socket.once('connect', () => socket.destroy());
    socket.once('error', () => resolve(false));
  });
}
