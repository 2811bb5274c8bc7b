import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { freePort } from './ports.ts';

// The packages as users get them: packed, and installed into an app outside of this workspace.

export const workspace: string = fileURLToPath(new URL('../../', import.meta.url));

// The environment variables of the test runner's package manager must not affect another one, except for the network settings.
const passed = /^(?:PATH|HOME|CI|NODE_EXTRA_CA_CERTS|SSL_CERT_FILE|SSL_CERT_DIR|HTTPS?_PROXY|NO_PROXY)$/i;
const environment = {
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => passed.test(name))),
  NO_COLOR: '1',
  ASTRO_TELEMETRY_DISABLED: '1',
  ASTRO_DEV_BACKGROUND: '1',
};

const execute = promisify(execFile);

/** Runs a command, and resolves to its output. Rejects with the output in the message if it fails. */
export async function run(command: string, args: string[], cwd: string): Promise<string> {
  try {
    return (await execute(command, args, { cwd, env: environment, timeout: 120_000 })).stdout;
  } catch (error) {
    const { message, stdout } = error as Error & { stdout: string };
    throw new Error(`${message}\n${stdout}`, { cause: error });
  }
}

/** Packs a package as it is published. Resolves to the absolute path of the tarball; `into` must be absolute too. */
export async function pack(packageFolder: string, into: string): Promise<string> {
  const printed = await run('pnpm', ['pack', '--json', '--pack-destination', into], packageFolder);
  return (JSON.parse(printed) as { filename: string }).filename;
}

/** The app's own dependencies, in the versions that the workspace tests against. */
const dependencies = pick(join(workspace, 'test/apps/astro-7/package.json'), ['astro', '@astrojs/node']);

/** A site that counts the requests of a session. */
export const appFiles: Record<string, string> = {
  'astro.config.mjs': `
    import node from '@astrojs/node';
    import { defineConfig } from 'astro/config';
    import { redisDriver } from '@coatcheck/session-redis';

    export default defineConfig({
      output: 'server',
      adapter: node({ mode: 'standalone' }),
      session: { driver: redisDriver() },
    });`,
  'src/pages/count.ts': `
    export const GET = async ({ session }) => {
      const count = ((await session.get('count')) ?? 0) + 1;
      session.set('count', count);
      return Response.json({ count });
    };`,
};

export interface Layout {
  manager: 'npm' | 'pnpm';
  /** Lines for `pnpm-workspace.yaml`. */
  settings?: string;
}

/**
 * Writes the app and installs it with these tarballs, by package name. The packed versions are on no registry, so the app overrides the
 * version of core; users need no override.
 */
export async function installApp(app: string, tarballs: Record<string, string>, layout: Layout): Promise<void> {
  for (const [path, text] of Object.entries(appFiles)) {
    await mkdir(dirname(join(app, path)), { recursive: true });
    await writeFile(join(app, path), text);
  }
  const files = Object.entries(tarballs).map(([name, path]) => [name, `file:${path}`] as const);
  const { '@coatcheck/session-core': core, ...drivers } = Object.fromEntries(files);
  const overrides = { '@coatcheck/session-core': core };
  const npm = layout.manager === 'npm';
  const manifest = { private: true, type: 'module', dependencies: { ...dependencies, ...drivers } };
  await writeFile(join(app, 'package.json'), JSON.stringify(npm ? { ...manifest, overrides } : manifest, null, 2));
  if (npm) {
    await run('npm', ['install', '--no-audit', '--no-fund', '--prefer-offline'], app);
  } else {
    // JSON is valid YAML.
    const settings = { packages: ['.'], overrides, allowBuilds: { esbuild: false, sharp: false } };
    const lines = Object.entries(settings).map(([name, value]) => `${name}: ${JSON.stringify(value)}\n`);
    await writeFile(join(app, 'pnpm-workspace.yaml'), lines.join('') + (layout.settings ?? ''));
    await run('pnpm', ['install', '--prefer-offline'], app);
  }
}

const astro = 'node_modules/astro/bin/astro.mjs';

export const buildApp = (app: string): Promise<string> => run(process.execPath, [astro, 'build'], app);

/** The arguments for Node that run the app, built or in development. */
export const built: string[] = ['dist/server/entry.mjs'];
export async function inDevelopment(): Promise<string[]> {
  return [astro, 'dev', '--host', '127.0.0.1', '--port', String(await freePort())];
}

/** Runs Node in the app until it prints its address. Resolves to the responses to two requests with one cookie. */
export async function countTwice(app: string, args: string[], env: Record<string, string>): Promise<unknown[]> {
  const child = spawn(process.execPath, args, {
    cwd: app,
    env: { ...environment, HOST: '127.0.0.1', PORT: '0', ...env },
  });
  const closed = once(child, 'close');
  try {
    let output = '';
    const url = await new Promise<string>((resolve, reject) => {
      const listen = (chunk: Buffer) => {
        output += String(chunk);
        const found = /http:\/\/(?:localhost|127\.0\.0\.1):[1-9]\d*/.exec(output);
        if (found) resolve(found[0].replace('localhost', '127.0.0.1'));
      };
      child.stdout.on('data', listen);
      child.stderr.on('data', listen);
      child.on('exit', () => reject(new Error(output)));
    });
    const first = await fetch(`${url}/count`);
    const cookie = first.headers.getSetCookie()[0]!.split(';')[0]!;
    const second = await fetch(`${url}/count`, { headers: { cookie } });
    return [await first.json(), await second.json()];
  } finally {
    child.kill('SIGKILL');
    await closed;
  }
}

function pick(manifest: string, names: string[]): Record<string, string> {
  const { dependencies: all } = JSON.parse(readFileSync(manifest, 'utf8')) as { dependencies: Record<string, string> };
  return Object.fromEntries(names.map((name) => [name, all[name]!]));
}
