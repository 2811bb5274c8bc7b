import { spawn, type ChildProcess } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { cp, mkdir, open, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { freePort } from './ports.ts';

const apps = fileURLToPath(new URL('../apps/', import.meta.url));
const workspace = fileURLToPath(new URL('../../', import.meta.url));

/** A site to build: the source in `test/apps/astro-7`, with a session configuration and a version of Astro. */
export interface SiteSpec {
  /** Selects the folder `test/apps/astro-<this>`. */
  astro: 6 | 7 | '6-cloudflare' | '7-cloudflare' | '7-netlify' | '7-storage' | '7-vercel';
  /** The expression after `driver:` in `astro.config.mjs`. It can use the names in `importable`. */
  driver: string;
  /** The other options of `session`. */
  session?: { ttl?: number; cookie?: string | { name?: string; [option: string]: unknown } };
  /** Environment variables of the build. */
  env?: Record<string, string>;
  /** Files to add to the site or to replace, by path: `{ '.env': 'REDIS_URL=...' }`. */
  files?: Record<string, string>;
}

/** The names that a `driver` expression can use, and the modules that export them. */
const importable: Record<string, string> = {
  redisDriver: '@coatcheck/session-redis',
  memoryDriver: '@coatcheck/session-memory',
  fsDriver: '@coatcheck/session-fs',
  sqliteDriver: '@coatcheck/session-sqlite',
  postgresDriver: '@coatcheck/session-postgres',
  libsqlDriver: '@coatcheck/session-libsql',
  fromEnv: '@coatcheck/session-core',
  sessionDrivers: 'astro/config',
  documentedDriver: './src/drivers/documented/config.ts',
  unstorageDriver: './src/drivers/unstorage/config.ts',
  wrappedUnstorageDriver: './src/drivers/unstorage/config.ts',
  ownDriver: './src/drivers/own/config.ts',
};

/** A password in the environment of builds. Their output must not contain it. */
export const BUILD_PASSWORD = 'c0rrect-h0rse-battery';
const buildEnv = { REDIS_URL: `redis://:${BUILD_PASSWORD}@127.0.0.1:1` };

// A build takes seconds, so all tests of the Redis driver that need no other configuration share these two.

/** A site with our Redis driver and its default options. */
export const redisSite = (astro: 6 | 7): SiteSpec => ({ astro, driver: 'redisDriver()', env: buildEnv });

/** A site with our Redis driver, with `ttl` and `timeout` from `SESSION_TTL` and `SESSION_TIMEOUT`. */
export const redisSiteFromVariables = (astro: 6 | 7): SiteSpec => ({
  astro,
  driver: `redisDriver({ ttl: fromEnv('SESSION_TTL'), timeout: fromEnv('SESSION_TIMEOUT') })`,
});

export interface Built {
  spec: SiteSpec;
  /** The site's folder. */
  dir: string;
  /** The folder with the output of the build. */
  dist: string;
  /** The text that the build printed. */
  log: string;
}

export interface Site extends AsyncDisposable {
  /** `http://127.0.0.1:<port>`, or with `https:`, without a trailing slash. */
  url: string;
  pid: number;
  dir: string;
  /** Everything that the process has printed so far, without colors. */
  logs(): string;
  /** Resolves to the match as soon as the logs have one; earlier output counts. Rejects after the deadline. */
  logged(pattern: RegExp, deadlineMs?: number): Promise<RegExpExecArray>;
  /** A gate at which a program waits with `['wait', name]`. Use a new name each time, because an open gate stays open. */
  gate(name: string): Gate;
  /** Freezes the process until `thaw()`. Requests wait. */
  freeze(): void;
  thaw(): void;
  /** Asks the process to end, and resolves when it has ended. */
  stop(): Promise<void>;
  /** Kills the process, even if it is frozen. */
  kill(): Promise<void>;
}

export interface DevSite extends Site {
  /** Replaces the text of a file in one step: a dev server that sees a partial file would keep its old configuration. */
  edit(path: string, change: (text: string) => string): Promise<void>;
}

export interface Gate {
  /** Resolves as soon as this many requests have reached the gate since the start of the site. */
  arrived(count?: number): Promise<void>;
  /** Lets all waiting and later requests through. */
  open(): Promise<void>;
}

export interface StartOptions {
  env?: Record<string, string>;
  /** How far the clock of the site is ahead, in milliseconds: `7_200_000` is two hours. */
  clockOffsetMs?: number;
  /** More arguments for Node, before the entry file. */
  nodeArgs?: string[];
}

export interface DevOptions extends StartOptions {
  /** Listens on all addresses of the machine, as `astro dev --host` does. Otherwise on 127.0.0.1 only. */
  host?: boolean;
}

const builds = new Map<string, Promise<Built>>();

/**
 * Runs the real `astro build`. Calls with the same input share the result, also in other processes and later runs: its name is a digest of
 * all input, including the built packages of this workspace.
 */
export async function buildSite(spec: SiteSpec): Promise<Built> {
  const name = await digest(spec);
  let built = builds.get(name);
  if (!built) builds.set(name, (built = buildOnce(spec, join(appFolder(spec), '.sites', name))));
  return built;
}

/** Starts a built site in a separate process. Resolves when it listens. */
export async function startSite(built: Built, options: StartOptions = {}): Promise<Site> {
  const entry = join(built.dist, 'server/entry.mjs');
  return run(built.dir, [...(options.nodeArgs ?? []), entry], options);
}

/** Starts `astro dev` in a separate folder, which is removed when the site is disposed of. */
export async function devSite(spec: SiteSpec, { host, ...options }: DevOptions = {}): Promise<DevSite> {
  const dir = join(appFolder(spec), '.sites', `dev-${randomUUID()}`);
  await writeSite(spec, dir);
  // Vite 7 uses its default port 5173 instead of port 0.
  const port = String(await freePort());
  const args = [
    ...(options.nodeArgs ?? []),
    astroCli(spec),
    'dev',
    '--root',
    dir,
    '--host',
    ...(host ? [] : ['127.0.0.1']),
    '--port',
    port,
  ];
  const removed = () => rm(dir, { recursive: true, force: true });
  try {
    const site = await run(dir, args, { ...options, env: { ...spec.env, ...options.env } });
    return {
      ...site,
      async edit(path, change) {
        const file = join(dir, path);
        const draft = join(dir, 'draft');
        await writeFile(draft, change(await readFile(file, 'utf8')));
        await rename(draft, file);
      },
      async [Symbol.asyncDispose]() {
        await site.kill();
        await removed();
      },
    };
  } catch (error) {
    await removed();
    throw error;
  }
}

// ---------------------------------------------------------------------------------------------------------------- folders

const appFolder = (spec: SiteSpec) => join(apps, `astro-${spec.astro}`);
const astroCli = (spec: SiteSpec) => join(appFolder(spec), 'node_modules/astro/bin/astro.mjs');

function astroConfig({ driver, session }: SiteSpec): string {
  const named = Object.entries(importable).filter(([name]) => new RegExp(`\\b${name}\\b`).test(driver));
  const options = Object.entries(session ?? {}).map(([name, value]) => `, ${name}: ${JSON.stringify(value)}`);
  return [
    `import node from '@astrojs/node';`,
    `import { defineConfig } from 'astro/config';`,
    ...named.map(([name, from]) => `import { ${name} } from '${from}';`),
    ``,
    `export default defineConfig({`,
    `  output: 'server',`,
    `  adapter: node({ mode: 'standalone' }),`,
    `  devToolbar: { enabled: false },`,
    `  session: { driver: ${driver}${options.join('')} },`,
    `});`,
    ``,
  ].join('\n');
}

/** Copies the source, because a build writes next to it, and because both versions of Astro share it. */
async function writeSite(spec: SiteSpec, dir: string): Promise<void> {
  await rm(dir, { recursive: true, force: true });
  await cp(join(apps, 'astro-7/src'), join(dir, 'src'), { recursive: true });
  for (const [path, text] of Object.entries({ 'astro.config.mjs': astroConfig(spec), ...spec.files })) {
    await mkdir(dirname(join(dir, path)), { recursive: true });
    await writeFile(join(dir, path), text);
  }
}

async function digest(spec: SiteSpec): Promise<string> {
  const { astro, env, files } = spec;
  const settings = JSON.stringify([process.version, astro, astroConfig(spec), env, files]);
  const inputs = [join(workspace, 'pnpm-lock.yaml'), ...(await filesIn(join(apps, 'astro-7/src')))];
  // A site without our packages need not be built again when they change.
  if (/@coatcheck\/|ownDriver/.test(settings)) {
    const packages = await readdir(join(workspace, 'packages'));
    for (const name of packages.sort()) inputs.push(...(await filesIn(join(workspace, 'packages', name, 'dist'))));
  }
  const hash = createHash('sha256').update(settings);
  for (const path of inputs) hash.update(path).update(await readFile(path));
  return hash.digest('hex').slice(0, 16);
}

async function filesIn(dir: string): Promise<string[]> {
  const found = await readdir(dir, { recursive: true, withFileTypes: true }).catch(() => []);
  return found
    .filter((it) => it.isFile())
    .map((it) => join(it.parentPath, it.name))
    .sort();
}

// ---------------------------------------------------------------------------------------------------------------- building

const buildDeadlineMs = 180_000;

async function buildOnce(spec: SiteSpec, dir: string): Promise<Built> {
  const built = { spec, dir, dist: join(dir, 'dist') };
  const logFile = join(dir, 'build-succeeded.log');
  await mkdir(dirname(dir), { recursive: true });
  await using _lock = await lock(`${dir}.lock`);
  try {
    const log = await readFile(logFile, 'utf8');
    await utimes(logFile, new Date(), new Date());
    return { ...built, log };
  } catch {
    // There is no build yet.
  }
  await removeOldSites(dirname(dir));
  await writeSite(spec, dir);
  const child = spawnNode(dir, [astroCli(spec), 'build', '--root', dir], spec.env);
  const timer = setTimeout(() => child.process.kill('SIGKILL'), buildDeadlineMs);
  await child.exited;
  clearTimeout(timer);
  if (child.process.exitCode !== 0) {
    throw new Error(`astro build failed\n${JSON.stringify(spec)}\n${astroConfig(spec)}\n${child.logs()}`);
  }
  await writeFile(logFile, child.logs());
  return { ...built, log: child.logs() };
}

/** Allows one builder at a time for a folder, across processes. Takes over the lock of a process that has ended. */
async function lock(path: string): Promise<AsyncDisposable> {
  const deadline = Date.now() + buildDeadlineMs;
  for (;;) {
    try {
      const file = await open(path, 'wx');
      await file.writeFile(String(process.pid));
      await file.close();
      return { [Symbol.asyncDispose]: () => rm(path, { force: true }) };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const owner = await readFile(path, 'utf8').catch(() => '');
    if (owner !== '' && !isAlive(Number(owner))) await rm(path, { force: true });
    else if (Date.now() > deadline) throw new Error(`${path} is held by process ${owner}`);
    else await pause(100);
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

async function removeOldSites(folder: string): Promise<void> {
  const dayAgo = Date.now() - 86_400_000;
  for (const name of await readdir(folder)) {
    const path = join(folder, name);
    const used = await stat(join(path, 'build-succeeded.log')).catch(() => stat(path).catch(() => undefined));
    if (used && used.mtimeMs < dayAgo) await rm(path, { recursive: true, force: true });
  }
}

// ---------------------------------------------------------------------------------------------------------------- running

const children = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
});

interface Child {
  process: ChildProcess;
  exited: Promise<unknown>;
  logs(): string;
  logged(pattern: RegExp, deadlineMs: number): Promise<RegExpExecArray>;
}

/**
 * The environment is not inherited: variables of the test runner such as `NODE_ENV=test` would change the build, and a developer's
 * `REDIS_URL` must not affect tests without one.
 */
function spawnNode(cwd: string, args: string[], env: Record<string, string> = {}): Child {
  const { PATH = '', HOME = '', TMPDIR = '/tmp' } = process.env;
  const child = spawn(process.execPath, ['--import', join(apps, 'preload.js'), ...args], {
    cwd,
    // Astro 7 runs `astro dev` in the background if it detects an agent, unless this variable says that it is there already.
    env: { PATH, HOME, TMPDIR, NO_COLOR: '1', ASTRO_TELEMETRY_DISABLED: '1', ASTRO_DEV_BACKGROUND: '1', ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  children.add(child);
  let text = '';
  const listeners = new Set<() => void>();
  const changed = () => {
    for (const listener of listeners) listener();
  };
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
      changed();
    });
  }
  let ended = false;
  const exited = once(child, 'close').then(() => {
    ended = true;
    children.delete(child);
    changed();
  });

  return {
    process: child,
    exited,
    logs: () => text,
    logged(pattern, deadlineMs) {
      return new Promise((resolve, reject) => {
        const settle = (act: () => void) => {
          clearTimeout(timer);
          listeners.delete(look);
          act();
        };
        const fail = (why: string) => settle(() => reject(new Error(`${why} before it printed ${pattern}\n${text}`)));
        const look = () => {
          const match = pattern.exec(text);
          if (match) settle(() => resolve(match));
          else if (ended) fail(`the site ended (${child.exitCode ?? child.signalCode})`);
        };
        const timer = setTimeout(() => fail(`${deadlineMs} ms passed`), deadlineMs);
        listeners.add(look);
        look();
      });
    },
  };
}

const startDeadlineMs = 90_000;

async function run(dir: string, args: string[], { env, clockOffsetMs = 0 }: StartOptions): Promise<Site> {
  const listening = { HOST: '127.0.0.1', PORT: '0', TEST_CLOCK_OFFSET_MS: String(clockOffsetMs) };
  const child = spawnNode(dir, args, { ...listening, ...env });
  const end = async (signal: NodeJS.Signals) => {
    child.process.kill(signal);
    child.process.kill('SIGCONT');
    await child.exited;
  };

  try {
    const address = /(?:listening on|Local) +(https?:\/\/(?:127\.0\.0\.1|localhost):\d+)/;
    const [, printed] = await child.logged(address, startDeadlineMs);
    const url = printed!.replace('localhost', '127.0.0.1');
    return {
      url,
      pid: child.process.pid!,
      dir,
      logs: child.logs,
      logged: (pattern, deadlineMs = 60_000) => child.logged(pattern, deadlineMs),
      gate: (name) => gateOf(url, name),
      freeze: () => void child.process.kill('SIGSTOP'),
      thaw: () => void child.process.kill('SIGCONT'),
      stop: () => end('SIGTERM'),
      kill: () => end('SIGKILL'),
      [Symbol.asyncDispose]: () => end('SIGKILL'),
    };
  } catch (error) {
    await end('SIGKILL');
    throw error;
  }
}

function gateOf(url: string, name: string): Gate {
  const at = `${url}/gate?name=${encodeURIComponent(name)}`;
  const ask = async (path: string, method: string) => {
    // Astro refuses a POST without an origin, to prevent forged requests.
    const response = await fetch(path, { method, headers: { origin: url } });
    if (!response.ok) throw new Error(`gate ${name}: ${response.status} ${await response.text()}`);
  };
  return {
    arrived: (count = 1) => ask(`${at}&arrivals=${count}`, 'GET'),
    open: () => ask(at, 'POST'),
  };
}
