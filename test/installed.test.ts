import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import {
  appFiles,
  buildApp,
  built,
  countTwice,
  inDevelopment,
  installApp,
  pack,
  workspace,
  type Layout,
} from './support/installed.ts';
import { startRedis } from './support/redis-server.ts';
import { scopeOf } from './support/scope.ts';

// An app that installed the packages needs one line in its config, with every common way to install them.

let folder: string;
let tarballs: Record<string, string>;
let env: { REDIS_URL: string };

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'coatcheck-installed-'));
  tarballs = {};
  for (const name of ['session-core', 'session-redis']) {
    tarballs[`@coatcheck/${name}`] = await pack(join(workspace, 'packages', name), folder);
  }
  const redis = await startRedis();
  env = { REDIS_URL: redis.url };
  return async () => {
    await redis[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  };
}, 120_000);

const layouts: [title: string, layout: Layout][] = [
  ['npm', { manager: 'npm' }],
  ['pnpm', { manager: 'pnpm' }],
  ['pnpm with hoist: false', { manager: 'pnpm', settings: 'hoist: false\n' }],
];

// Without hoisting, a package finds only the dependencies that it declares.
describe.each(scopeOf(layouts, ['pnpm with hoist: false']))('installed by %s', (title, layout) => {
  test('one line in the config works in development and in a build', { timeout: 400_000 }, async () => {
    const app = join(folder, title.replaceAll(/\W+/g, '-'));
    await installApp(app, tarballs, layout);
    const twice = [{ count: 1 }, { count: 2 }];
    expect(await countTwice(app, await inDevelopment(), env)).toEqual(twice);
    await buildApp(app);
    expect(await countTwice(app, built, env)).toEqual(twice);

    // Run it as it is deployed: the build and the dependencies, in another folder.
    const deployed = `${app}-deployed`;
    await cp(app, deployed, { recursive: true, verbatimSymlinks: true });
    for (const path of Object.keys(appFiles)) await rm(join(deployed, path));
    expect(await countTwice(deployed, built, env)).toEqual(twice);
  });
});
