import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, test } from 'vitest';
import { startRedis, type RedisServer } from './support/redis-server.ts';

// The packages as strangers get them: packed, and installed into an app outside of this workspace, with the one line in its config.

const workspace = fileURLToPath(new URL('../', import.meta.url));
const execute = promisify(execFile);

// What the test runner's own package manager says in the environment is not meant for another one.
const { PATH = '', HOME = '', CI = '' } = process.env;
const environment = { PATH, HOME, CI, NO_COLOR: '1', ASTRO_TELEMETRY_DISABLED: '1', ASTRO_DEV_BACKGROUND: '1' };

const run = (command: string, args: string[], cwd: string) =>
  execute(command, args, { cwd, env: environment, timeout: 120_000 });

/** What the app itself brings; the versions are those that the workspace tests against. */
const dependencies = { astro: '~7.3.5', '@astrojs/node': '^11.1.6' };

const files: Record<string, string> = {
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

let folder: string;
let tarballs: Record<string, string>;
let redis: RedisServer;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'coatcheck-installed-'));
  tarballs = {};
  for (const name of ['session-core', 'session-redis']) {
    await run('pnpm', ['pack', '--pack-destination', folder], join(workspace, 'packages', name));
    const file = (await readdir(folder)).find((it) => it.includes(name))!;
    tarballs[`@coatcheck/${name}`] = `file:${join(folder, file)}`;
  }
  redis = await startRedis();
  return async () => {
    await redis[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  };
}, 120_000);

interface Layout {
  manager: 'npm' | 'pnpm';
  /** Lines for `pnpm-workspace.yaml`. */
  settings?: string;
}

// What is packed here is on no registry, so core is pointed out to the package manager; a user has nothing of this.
async function install(name: string, { manager, settings = '' }: Layout): Promise<string> {
  const app = join(folder, name);
  for (const [path, text] of Object.entries(files)) {
    await mkdir(join(app, path, '..'), { recursive: true });
    await writeFile(join(app, path), text);
  }
  const core = { '@coatcheck/session-core': tarballs['@coatcheck/session-core']! };
  const manifest = {
    name,
    private: true,
    type: 'module',
    dependencies: { ...dependencies, '@coatcheck/session-redis': tarballs['@coatcheck/session-redis'] },
    ...(manager === 'npm' && { overrides: core }),
  };
  await writeFile(join(app, 'package.json'), JSON.stringify(manifest, null, 2));
  if (manager === 'npm') {
    await run('npm', ['install', '--no-audit', '--no-fund', '--prefer-offline'], app);
  } else {
    const overrides = `overrides:\n  '@coatcheck/session-core': '${core['@coatcheck/session-core']}'\n`;
    const builds = 'allowBuilds:\n  esbuild: false\n  sharp: false\n';
    await writeFile(join(app, 'pnpm-workspace.yaml'), `packages: ['.']\n${overrides}${builds}${settings}`);
    await run('pnpm', ['install', '--prefer-offline'], app);
  }
  return app;
}

const astro = ['node_modules/astro/bin/astro.mjs'];

/** Runs Node in the app until it prints its address; the answer to two requests with one cookie. */
async function countTwice(app: string, args: string[]): Promise<unknown[]> {
  const child = spawn(process.execPath, args, {
    cwd: app,
    env: { ...environment, HOST: '127.0.0.1', PORT: '0', REDIS_URL: redis.url },
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

describe.each<[string, Layout]>([
  ['npm', { manager: 'npm' }],
  ['pnpm', { manager: 'pnpm' }],
  ['pnpm with hoist: false', { manager: 'pnpm', settings: 'hoist: false\n' }],
])('installed by %s', (title, layout) => {
  test('one line in the config works in development and in a build', { timeout: 400_000 }, async () => {
    const app = await install(title.replaceAll(/\W+/g, '-'), layout);
    const twice = [{ count: 1 }, { count: 2 }];
    const dev = [...astro, 'dev', '--host', '127.0.0.1', '--port', String(await freePort())];
    expect(await countTwice(app, dev)).toEqual(twice);
    await run(process.execPath, [...astro, 'build'], app);
    expect(await countTwice(app, ['dist/server/entry.mjs'])).toEqual(twice);

    // As it is deployed: the build and the dependencies, elsewhere.
    const deployed = `${app}-deployed`;
    await cp(app, deployed, { recursive: true, verbatimSymlinks: true });
    for (const path of Object.keys(files)) await rm(join(deployed, path));
    expect(await countTwice(deployed, ['dist/server/entry.mjs'])).toEqual(twice);
  });
});

async function freePort(): Promise<number> {
  const { createServer } = await import('node:net');
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}
