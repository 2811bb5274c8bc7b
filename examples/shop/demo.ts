// `pnpm demo`: builds the shop and starts it on Redis, or in memory where there is none. Ctrl-C stops everything.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

import { redisUrl } from '../../test/support/redis-server.ts';

const shop = import.meta.dirname;
const children = new Set<ChildProcess>();

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => void stop(0));

try {
  await start();
} catch (error) {
  console.error(messageOf(error));
  await stop(1);
}

async function start(): Promise<void> {
  const env: NodeJS.ProcessEnv = { ...process.env, ASTRO_TELEMETRY_DISABLED: '1', HOST: '127.0.0.1' };
  if (env.SHOP_DRIVER === 'memory') {
    console.log('Sessions are in memory, as SHOP_DRIVER says.');
  } else {
    try {
      env.REDIS_URL = await redisUrl();
      const whose = process.env.REDIS_URL ? 'the one that REDIS_URL names' : 'one that was started for this demo';
      console.log(`Sessions are in Redis, ${whose}.`);
    } catch (error) {
      env.SHOP_DRIVER = 'memory';
      console.log(`Sessions are in memory. ${messageOf(error)}`);
    }
  }

  console.log('Building the shop, and once more on Astro’s own driver for the race.');
  await build('astro.config.mjs', env);
  await build('astro.config.race.mjs', env);

  const port = await freePort(Number(process.env.PORT ?? 4321));
  const racePort = await freePort();
  env.RACE_COATCHECK = `http://127.0.0.1:${port}`;
  env.RACE_ASTRO = `http://127.0.0.1:${racePort}`;
  await serve('dist/race/server/entry.mjs', racePort, env);
  let server = await serve('dist/server/entry.mjs', port, env);

  // Not 127.0.0.1: over plain HTTP browsers keep a `Secure` cookie for localhost only.
  console.log(`\nThe shop  http://localhost:${port}\nThe race  http://localhost:${port}/race\n`);
  console.log('Ctrl-C stops everything.');

  if (env.SHOP_DRIVER === 'memory' || !process.stdin.isTTY) return;
  console.log('Enter restarts the shop: the carts are still there.');
  for await (const _ of process.stdin) {
    await end(server);
    server = await serve('dist/server/entry.mjs', port, env);
    console.log('Restarted.');
  }
}

async function build(config: string, env: NodeJS.ProcessEnv): Promise<void> {
  const child = run('node_modules/.bin/astro', ['build', '--silent', '--config', config], env);
  const [code, signal] = await once(child, 'exit');
  // Ctrl-C reaches the whole process group.
  if (signal) await stop(0);
  if (code !== 0) throw new Error(`Building with ${config} failed.`);
}

/** Resolves when the server answers. */
async function serve(entry: string, port: number, env: NodeJS.ProcessEnv): Promise<ChildProcess> {
  const child = run(process.execPath, [entry], { ...env, PORT: `${port}` });
  child.once('exit', (code, signal) => {
    if (signal) return;
    console.error(`${entry} ended with code ${code}.`);
    void stop(1);
  });
  const deadline = Date.now() + 10_000;
  while (!(await fetch(`http://127.0.0.1:${port}/favicon.svg`).catch(() => undefined))?.ok) {
    if (Date.now() > deadline) throw new Error(`${entry} does not answer on port ${port}.`);
    await sleep(50);
  }
  return child;
}

function run(command: string, args: string[], env: NodeJS.ProcessEnv): ChildProcess {
  const child = spawn(command, args, { cwd: shop, env, stdio: ['ignore', 'ignore', 'inherit'] });
  children.add(child);
  child.once('exit', () => children.delete(child));
  return child;
}

async function end(child: ChildProcess): Promise<void> {
  if (!children.has(child)) return;
  const exit = once(child, 'exit');
  child.kill();
  await exit;
}

async function stop(code: number): Promise<never> {
  await Promise.all([...children].map(end));
  // Astro's own driver has REDIS_URL written into its build.
  await rm(`${shop}/dist/race`, { recursive: true, force: true });
  // The Redis that was started for the demo goes with this process.
  process.exit(code);
}

/** The wanted port, or another if it is taken. */
async function freePort(wanted = 0): Promise<number> {
  const probe = createServer();
  try {
    await once(probe.listen(wanted, '127.0.0.1'), 'listening');
  } catch {
    return freePort();
  }
  const { port } = probe.address() as AddressInfo;
  await once(probe.close(), 'close');
  return port;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
