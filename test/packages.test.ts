import { checkPackage, createPackageFromTarballData, type Analysis, type Problem } from '@arethetypeswrong/core';
import { problemAffectsResolutionKind } from '@arethetypeswrong/core/problems';
import { globSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';
import { beforeAll, describe, expect, test } from 'vitest';
import { pack, run, workspace } from './support/installed.ts';

// Every package as it is published: the content of its tarball, and how tools understand it.

interface Manifest {
  name: string;
  version: string;
  [field: string]: unknown;
  exports: Record<string, { types: string; default: string }>;
  dependencies: Record<string, string>;
}

const folders = globSync('packages/*/package.json', { cwd: workspace }).map(dirname).sort();

let temporary: string;
beforeAll(async () => {
  temporary = await mkdtemp(join(tmpdir(), 'coatcheck-packages-'));
  return () => rm(temporary, { recursive: true, force: true });
});

describe.each(folders)('%s', (folder) => {
  let tarball: Buffer<ArrayBuffer>;
  let files: string[];
  let read: (path: string) => string;
  let manifest: Manifest;

  beforeAll(async () => {
    const unpacked = join(temporary, folder);
    await mkdir(unpacked, { recursive: true });
    const path = await pack(join(workspace, folder), unpacked);
    await run('tar', ['-xzf', path], unpacked);
    tarball = await readFile(path);
    const root = join(unpacked, 'package');
    files = globSync('**/*', { cwd: root, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(root.length + 1));
    read = (name) => readFileSync(join(root, name), 'utf8');
    manifest = JSON.parse(read('package.json'));
  }, 60_000);

  test('publint reports nothing', async () => {
    const { messages, pkg } = await publint({ pack: { tarball: tarball.buffer }, strict: true });
    expect(messages.map((message) => formatMessage(message, pkg, { color: false }))).toEqual([]);
  });

  test('its types are found and match the imported modules', { timeout: 60_000 }, async () => {
    const analysis = await checkPackage(createPackageFromTarballData(tarball));
    expect(analysis.types).toEqual({ kind: 'included' });
    // The package has ES modules only, so results for CommonJS and older resolution modes do not count.
    const { problems } = analysis as Analysis;
    const counts = (problem: Problem) =>
      (['node16-esm', 'bundler'] as const).some((kind) =>
        problemAffectsResolutionKind(problem, kind, analysis as Analysis),
      );
    expect(problems.filter(counts)).toEqual([]);
  });

  test('its manifest has all fields for a registry', () => {
    expect(manifest).toMatchObject({
      name: expect.stringMatching(/^@coatcheck\/(?:astro|session-[a-z0-9-]+)$/),
      version: expect.stringMatching(/^\d+\.\d+\.\d+/),
      description: expect.stringMatching(/^[A-Z].+\.$/),
      keywords: expect.arrayContaining(['coatcheck', 'astro', 'session']),
      license: 'MIT',
      repository: { url: expect.stringMatching(/^git\+https:\/\/.+\.git$/), directory: folder },
      type: 'module',
      sideEffects: false,
      engines: { node: expect.any(String) },
      publishConfig: { access: 'public' },
    });
    expect(Object.keys(manifest)).not.toContain('private');
    // Installing it runs no scripts.
    expect(Object.keys(manifest['scripts'] ?? {}).filter((name) => /install|prepare/.test(name))).toEqual([]);
  });

  test('its manifest does not depend on this workspace', () => {
    const text = read('package.json');
    expect(text).not.toMatch(/workspace:|catalog:|file:|link:/);
    const core = manifest.dependencies['@coatcheck/session-core'];
    if (folder !== 'packages/session-core') {
      const { version } = JSON.parse(readFileSync(join(workspace, 'packages/session-core/package.json'), 'utf8'));
      expect(core).toBe(`^${version}`);
    }
  });

  test('contains its exports, a README and a license, and no internal files', () => {
    const targets = Object.values(manifest.exports).flatMap(({ types, default: code }) => [types, code]);
    expect(files).toEqual(expect.arrayContaining(targets.map((path) => path.replace('./', ''))));
    expect(files).toEqual(expect.arrayContaining(['README.md', 'LICENSE', 'package.json']));
    const known =
      /^(?:README\.md|CHANGELOG\.md|LICENSE|package\.json|src\/[\w/-]+(?:\.d)?\.ts|dist\/[\w/-]+(?:\.d\.ts|\.js)(?:\.map)?)$/;
    expect(files.filter((path) => !known.test(path) || /(?:^|[./-])test(?!ing)|spec\b/.test(path))).toEqual([]);
  });

  test('contains no local paths or registry hosts', () => {
    const foreign = /\bregistry\.(?:npmjs|yarnpkg)\b/;
    expect(files.filter((path) => read(path).includes(workspace) || foreign.test(read(path)))).toEqual([]);
  });

  test('maps every built file to a source that it contains', () => {
    const compiled = files.filter((path) => /^dist\/.*(?:\.d\.ts|\.js)$/.test(path));
    expect(compiled).not.toEqual([]);
    expect(files).toEqual(expect.arrayContaining(compiled.map((path) => `${path}.map`)));
    // A built file without a source is from an earlier build: remove `dist` and build again.
    const orphans = compiled.filter((path) => {
      const { sources } = JSON.parse(read(`${path}.map`)) as { sources: string[] };
      return !sources.every((source) => files.includes(join(dirname(path), source)));
    });
    expect(orphans).toEqual([]);
  });
});

test('there are packages', () => {
  expect(folders).toContain('packages/session-core');
});

const runtimes = folders.filter((folder) => './runtime' in exportsOf(folder));

test.each(runtimes)(
  'importing the runtime of %s loads at most five files, and nothing that takes long',
  async (folder) => {
    // What a driver does not need to be created, such as a client, `node:fs` or devalue, is loaded by its first operation.
    const script = `
    const { registerHooks } = require('node:module');
    const load = (url, context, next) => (console.log(url), next(url, context));
    registerHooks({ load });
    import(process.argv[1]).then(({ default: create }) => create());
  `;
    const runtime = join(workspace, folder, 'dist/runtime.js');
    const loaded = (await run(process.execPath, ['--eval', script, runtime], workspace)).trim().split('\n');
    expect(loaded).toContain(pathToFileURL(runtime).href);
    expect(loaded.length).toBeLessThanOrEqual(5);
    const quick = /\/packages\/session-[\w-]+\/dist\/[\w-]+\.js$|^node:path$/;
    expect(loaded.filter((url) => !quick.test(url))).toEqual([]);
  },
);

function exportsOf(folder: string): Manifest['exports'] {
  return (JSON.parse(readFileSync(join(workspace, folder, 'package.json'), 'utf8')) as Manifest).exports;
}
