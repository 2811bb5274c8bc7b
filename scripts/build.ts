// Builds the package in the current folder: types with TypeScript, and one JavaScript file for each entry with Rolldown. What entries share,
// and what is loaded late, becomes a chunk beside them. Few files, because loading a file takes longer than running it.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { resolve } from 'node:path';
import { build, type ChunkingContext } from 'rolldown';

interface Manifest {
  exports: Record<string, { default: string }>;
}

const { exports } = JSON.parse(readFileSync('package.json', 'utf8')) as Manifest;
const names = Object.values(exports).map(({ default: path }) => path.replace(/^\.\/dist\/(.*)\.js$/, '$1'));
// Not exported: a driver's config refers to it with a URL.
if (existsSync('src/astro.ts')) names.push('astro');
// A command.
if (existsSync('src/bin.ts')) names.push('bin');
const input = Object.fromEntries(names.map((name) => [name, resolve(`src/${name}.ts`)]));
const entries = new Set(Object.values(input));

/** The chunk of a module that entries share. What is loaded late somewhere stays a chunk of its own, so that `shared` does not load it. */
function chunkOf(path: string, graph: ChunkingContext): string | null {
  return entries.has(path) || graph.getModuleInfo(path)!.dynamicImporters.length > 0 ? null : 'shared';
}

rmSync('dist', { recursive: true, force: true });
execFileSync('tsc', ['--emitDeclarationOnly'], { stdio: 'inherit' });
await build({
  input,
  platform: 'neutral',
  external: /^[^./]/,
  logLevel: 'warn',
  // So that an entry can import another one from its file, as `astro.ts` does.
  preserveEntrySignatures: 'allow-extension',
  output: {
    dir: 'dist',
    sourcemap: true,
    chunkFileNames: ({ isDynamicEntry }) => (isDynamicEntry ? 'late-[name].js' : '[name].js'),
    codeSplitting: { groups: [{ name: chunkOf, debugName: 'shared', minShareCount: 2 }] },
  },
});
