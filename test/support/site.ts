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

/** A site to build: the source in `test/apps/astro-7`, with one session configuration, on one version of Astro. */
export interface SiteSpec {
  /** The folder `test/apps/astro-<this>`. */
  astro: 6 | 7 | '7-cloudflare' | '7-netlify' | '7-storage' | '7-vercel';
  /** The expression that a user would write after `driver:` in `astro.config.mjs`; its names are those in `importable`. */
  driver: string;
  /** The other options of `session`. */
  session?: { ttl?: number; cookie?: string | { name?: string; [option: string]: unknown } };
  /** Environment variables of the build. */
  env?: Record<string, string>;
  /** Files to add to the site or to put in place of its own, by path: `{ '.env': 'REDIS_URL=...' }`. */
  files?: Record<string, string>;
}

/** What a `driver` expression can name, and where it comes from. */
const importable: Record<string, string> = {
  redisDriver: '@coatcheck/session-redis',
  memoryDriver: '@coatcheck/session-memory',
  fsDriver: '@coatcheck/session-fs',
  fromEnv: '@coatcheck/session-core',
  sessionDrivers: 'astro/config',
  documentedDriver: './src/drivers/documented/config.ts',
  unstorageDriver: './src/drivers/unstorage/config.ts',
  wrappedUnstorageDriver: './src/drivers/unstorage/config.ts',
  ownDriver: './src/drivers/own/config.ts',
};

/** A password that is in the environment of builds, and must not be in what they make. */
export const BUILD_PASSWORD = 'c0rrect-h0rse-battery';
const buildEnv = { REDIS_URL: `redis://:${BUILD_PASSWORD}@127.0.0.1:1` };

// A build takes seconds. These two serve all tests of the Redis driver that need no other configuration.

/** Our Redis driver as it is by default. */
export const redisSite = (astro: 6 | 7): SiteSpec => ({ astro, driver: 'redisDriver()', env: buildEnv });

/** Our Redis driver with lifetime and deadline from `SESSION_TTL` and `SESSION_TIMEOUT`. */
export const redisSiteFromVariables = (astro: 6 | 7): SiteSpec => ({
  astro,
  driver: `redisDriver({ ttl: fromEnv('SESSION_TTL'), timeout: fromEnv('SESSION_TIMEOUT') })`,
});

export interface Built {
  spec: SiteSpec;
  /** The site's folder. */
  dir: string;
  /** What the build made. */
  dist: string;
  /** What the build printed. */
  log: string;
}

export interface Site extends AsyncDisposable {
  /** `http://127.0.0.1:<port>`, without a slash at the end. */
  url: string;
  pid: number;
  dir: string;
  /** Everything that the process has printed so far, without colours. */
  logs(): string;
  /** Resolves with the match once the logs have one; what was printed before the call counts. Rejects after the deadline. */
  logged(pattern: RegExp, deadlineMs?: number): Promise<RegExpExecArray>;
  /** A place where a program stops at `['wait', name]`. Give every use a name of its own: an open gate stays open. */
  gate(name: string): Gate;
  /** The process does nothing until `thaw()`; what is sent to it waits. */
  freeze(): void;
  thaw(): void;
  /** Asks the process to end, and resolves when it has. */
  stop(): Promise<void>;
  /** Ends the process at once, also when it is frozen. */
  kill(): Promise<void>;
}

export interface DevSite extends Site {
  /** Puts the new text in the place of the old in one step: a dev server that sees half a file keeps its old configuration. */
  edit(path: string, change: (text: string) => string): Promise<void>;
}

export interface Gate {
  /** Resolves once so many requests have come to the gate, counted from the start of the site. */
  arrived(count?: number): Promise<void>;
  /** Lets everybody through who waits, and everybody who comes later. */
  open(): Promise<void>;
}

export interface StartOptions {
  env?: Record<string, string>;
  /** How wrong the clock of the site is: `7_200_000` puts it two hours ahead. */
  clockOffsetMs?: number;
  /** More arguments for Node, before the entry. */
  nodeArgs?: string[];
}

const builds = new Map<string, Promise<Built>>();

/**
 * Runs the real `astro build`. The result is shared by everybody who asks for the same, also in other processes and in a later
 * run: its name is a digest of all that goes into it, the built packages of this workspace included.
 */
export async function buildSite(spec: SiteSpec): Promise<Built> {
  const name = await digest(spec);
  let built = builds.get(name);
  if (!built) builds.set(name, (built = buildOnce(spec, join(appFolder(spec), '.sites', name))));
  return built;
}

/** Starts what was built, in a process of its own, and resolves when it listens. */
export async function startSite(built: Built, options: StartOptions = {}): Promise<Site> {
  const entry = join(built.dist, 'server/entry.mjs');
  return run(built.dir, [...(options.nodeArgs ?? []), entry], options);
}

/** `astro dev`, in a folder of its own that goes when the site is disposed of. */
export async function devSite(spec: SiteSpec, options: StartOptions = {}): Promise<DevSite> {
  const dir = join(appFolder(spec), '.sites', `dev-${randomUUID()}`);
  await writeSite(spec, dir);
  // Vite 7 takes the port 0 for its own 5173.
  const port = String(await freePort());
  const args = [
    ...(options.nodeArgs ?? []),
    astroCli(spec),
    'dev',
    '--root',
    dir,
    '--host',
    '127.0.0.1',
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

/** A copy, because a build writes beside its source, and because both versions of Astro share one source. */
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
  // A site without our packages is not built again because one of them was.
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
    // Nobody has built it yet.
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

/** One builder at a time for one folder, in whatever process; the lock of a process that is no more is taken over. */
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
 * The environment is not inherited: the test runner's own variables (`NODE_ENV=test`) change what is built, and a developer's
 * `REDIS_URL` must not reach a test of what happens without one.
 */
function spawnNode(cwd: string, args: string[], env: Record<string, string> = {}): Child {
  const { PATH = '', HOME = '', TMPDIR = '/tmp' } = process.env;
  const child = spawn(process.execPath, ['--import', join(apps, 'preload.js'), ...args], {
    cwd,
    // Astro 7 sends `astro dev` to the background when it believes that an agent runs it, unless this says that it is there already.
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
    const [, url] = await child.logged(/(?:listening on|Local) +(http:\/\/127\.0\.0\.1:\d+)/, startDeadlineMs);
    return {
      url: url!,
      pid: child.process.pid!,
      dir,
      logs: child.logs,
      logged: (pattern, deadlineMs = 60_000) => child.logged(pattern, deadlineMs),
      gate: (name) => gateOf(url!, name),
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
    // Astro refuses a POST that names no origin, as protection against forged requests.
    const response = await fetch(path, { method, headers: { origin: url } });
    if (!response.ok) throw new Error(`gate ${name}: ${response.status} ${await response.text()}`);
  };
  return {
    arrived: (count = 1) => ask(`${at}&arrivals=${count}`, 'GET'),
    open: () => ask(at, 'POST'),
  };
}
