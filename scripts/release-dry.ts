import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildApp, built, countTwice, installApp, pack, run, workspace } from '@coatcheck/test-support/installed';
import { startRedis } from '@coatcheck/test-support/redis-server';

// A release up to the point where it would leave this machine, in a copy: version, build, pack, and a new Astro app that installs what was
// packed. `pnpm release:dry`.

interface Manifest {
  name: string;
  version: string;
}

const temporary = mkdtempSync(join(tmpdir(), 'coatcheck-release-'));
const copy = join(temporary, 'workspace');
const tarballs = join(temporary, 'tarballs');
const app = join(temporary, 'app');

try {
  step('copy what git knows of the workspace');
  for (const path of git('ls-files', '-z', '--cached', '--others', '--exclude-standard', '--deduplicate').split('\0')) {
    if (path && existsSync(join(workspace, path))) cpSync(join(workspace, path), join(copy, path));
  }
  mkdirSync(tarballs);
  const before = manifests();
  await run('pnpm', ['install', '--frozen-lockfile', '--prefer-offline'], copy);

  step('version');
  if (globSync('.changeset/*.md', { cwd: copy }).every((path) => path.endsWith('README.md'))) {
    const all = before.map(({ name }) => `'${name}': patch\n`).join('');
    writeFileSync(join(copy, '.changeset/dry-run.md'), `---\n${all}---\n\nA release that is only tried.\n`);
  }
  await run('pnpm', ['exec', 'changeset', 'version'], copy);
  const after = manifests();
  for (const { name, version } of after) {
    const old = before.find((manifest) => manifest.name === name)!.version;
    console.log(`  ${name} ${old === version ? `stays at ${old}` : `${old} -> ${version}`}`);
  }
  if (after.every(({ version }, index) => version === before[index]!.version)) throw new Error('no version rose');
  await run(
    'pnpm',
    ['exec', 'oxfmt', '--check', '.changeset', ...globSync('packages/*/*.{json,md}', { cwd: copy })],
    copy,
  );

  step('build and pack');
  await run('pnpm', ['build'], copy);
  const packed: Record<string, string> = {};
  for (const { name } of after) packed[name] = await pack(join(copy, 'packages', name.split('/')[1]!), tarballs);
  for (const path of Object.values(packed)) console.log(`  ${path.slice(tarballs.length + 1)}`);

  step('install into a new Astro app');
  mkdirSync(app);
  await installApp(app, packed, { manager: 'npm' });
  for (const { name, version } of after) {
    const installed = JSON.parse(readFileSync(join(app, 'node_modules', name, 'package.json'), 'utf8')) as Manifest;
    if (installed.version !== version) throw new Error(`${name} ${installed.version} was installed, not ${version}`);
    await run(process.execPath, ['--input-type=module', '--eval', `await import('${name}')`], app);
  }

  step('build the app, start it, ask it');
  await buildApp(app);
  const redis = await startRedis();
  try {
    const answers = await countTwice(app, built, { REDIS_URL: redis.url });
    console.log(`  ${JSON.stringify(answers)}`);
    if (JSON.stringify(answers) !== '[{"count":1},{"count":2}]') throw new Error('the app does not keep its session');
  } finally {
    await redis[Symbol.asyncDispose]();
  }
  console.log('\nReady to be released. Nothing was published, and nothing changed here.');
} finally {
  rmSync(temporary, { recursive: true, force: true });
}

function step(name: string): void {
  console.log(`\n${name}`);
}

function git(...args: string[]): string {
  return execFileSync('git', args, { cwd: workspace, encoding: 'utf8' });
}

function manifests(): Manifest[] {
  const paths = globSync('packages/*/package.json', { cwd: copy }).sort();
  return paths.map((path) => JSON.parse(readFileSync(join(copy, path), 'utf8')) as Manifest);
}
