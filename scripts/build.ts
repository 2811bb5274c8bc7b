// Builds the package in the current folder: types with TypeScript, and one JavaScript file for each entry with Rolldown. What is loaded late, and
// what that shares with an entry, becomes a chunk beside them. Few files, because loading a file takes longer than running it.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { basename, resolve } from 'node:path';
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
const paths = Object.fromEntries(names.map((name) => [name, resolve(`src/${name}.ts`)]));
const entries = new Set(Object.values(paths));

const isCore = existsSync('src/driver.ts');

/** The chunk of a module that an entry shares. What is loaded late somewhere stays a chunk of its own, so that `shared` does not load it. */
function chunkOf(path: string, graph: ChunkingContext): string | null {
  const isLate = graph.getModuleInfo(path)!.dynamicImporters.length > 0;
  return entries.has(path) || isLate || !isLoadedAtOnce(path, graph) ? null : 'shared';
}

/** Whether an entry imports a module, directly or not. */
function isLoadedAtOnce(path: string, graph: ChunkingContext, seen = new Set<string>()): boolean {
  if (entries.has(path)) return true;
  if (seen.has(path)) return false;
  seen.add(path);
  return graph
    .getModuleInfo(path)!
    .importers.slice()
    .some((importer) => isLoadedAtOnce(importer, graph, seen));
}

/**
 * @param input the paths of the entries, by name. They share the chunk `shared`.
 * @param isOther whether a module is an entry of another build. It is imported from its file.
 */
async function bundle(input: Record<string, string>, isOther: (id: string) => boolean = () => false): Promise<void> {
  await build({
    input,
    platform: 'neutral',
    external: (id) => /^[^./]/.test(id) || isOther(id),
    logLevel: 'warn',
    treeshake: { moduleSideEffects: 'no-external' },
    output: {
      dir: 'dist',
      sourcemap: true,
      paths: (id) => (isOther(id) ? `./${basename(id, '.ts')}.js` : id),
      chunkFileNames: ({ isDynamicEntry }) => (isDynamicEntry ? 'late-[name].js' : '[name].js'),
      codeSplitting: { groups: [{ name: chunkOf, debugName: 'shared', minShareCount: 2 }] },
    },
  });
}

rmSync('dist', { recursive: true, force: true });
execFileSync('tsc', ['--emitDeclarationOnly'], { stdio: 'inherit' });
// An app loads several entries of core together, so they share their code. It loads one entry of another package: its configuration loads
// `index.js`, and its server `runtime.js`.
if (isCore) await bundle(paths);
else {
  for (const [name, path] of Object.entries(paths)) {
    await bundle({ [name]: path }, (id) => entries.has(resolve('src', id)) && resolve('src', id) !== path);
  }
}
