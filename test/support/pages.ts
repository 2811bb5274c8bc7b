import { execFile } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const workspace: string = fileURLToPath(new URL('../../', import.meta.url));

/** A Markdown file of the documentation. */
export interface Page {
  /** The path in the workspace, such as `packages/session-core/README.md`. */
  path: string;
  text: string;
}

/** A code block. It starts at the line after the fence. */
interface Block {
  line: number;
  /** The words after the fence: the language, and optionally a file name or `partial`. */
  info: string[];
  code: string;
}

/** A table. Its cells have no backticks and no Markdown escapes. */
export interface Table {
  line: number;
  header: string[];
  rows: { line: number; cells: string[] }[];
}

/** A file to type-check, and the line of the page at which it starts. */
export interface Source {
  page: string;
  line: number;
  name: string;
  code: string;
}

export function readPages(): Page[] {
  const patterns = ['*.md', 'docs/**/*.md', '{packages,examples}/*/*.md', 'test/*/*.md'];
  const paths = globSync(patterns, { cwd: workspace, exclude: ['**/node_modules/**', '**/CHANGELOG.md'] });
  return paths.sort().map((path) => ({ path, text: readFileSync(join(workspace, path), 'utf8') }));
}

function blocksOf({ text }: Page): Block[] {
  const blocks: Block[] = [];
  let open: { block: Block; fence: string; indent: number; lines: string[] } | undefined;
  for (const [index, line] of text.split('\n').entries()) {
    const [, indent = '', fence, info = ''] = /^( *)(`{3,})(.*)$/.exec(line) ?? [];
    if (open && fence === open.fence && info === '') {
      blocks.push({ ...open.block, code: `${open.lines.join('\n')}\n` });
      open = undefined;
    } else if (open) {
      open.lines.push(line.slice(open.indent));
    } else if (fence) {
      const block = { line: index + 2, info: info.split(' ').filter(Boolean), code: '' };
      open = { block, fence, indent: indent.length, lines: [] };
    }
  }
  return blocks;
}

const SCRIPT = /(?:^|\.)([cm]?[jt]sx?)$/;

/**
 * The code blocks of a page as files. A file name after the language names a block, and the blocks of a page can import each other by name.
 * A `diff` with a name stands for the file after the change. `partial` means that a block is not a complete file.
 */
export function sourcesOf(page: Page): Source[] {
  const sources: Source[] = [];
  for (const { line, info, code } of blocksOf(page)) {
    const [language = '', ...words] = info;
    const name = words.find((word) => SCRIPT.test(word));
    const extension = SCRIPT.exec(name ?? language)?.[1];
    if (!extension || words.includes('partial')) continue;
    const after = language === 'diff' ? code.replace(/^-.*$/gm, '').replace(/^[+ ]/gm, '') : code;
    // A declaration file is checked only if it is named as a source file. One that declares modules must not be a module itself.
    const isModule = /^(?:import|export) /m.test(after);
    const file = (isModule ? name?.replace(/\.d\.ts$/, '.declarations.ts') : name) ?? `line-${line}.${extension}`;
    if (sources.some((other) => other.name === file)) throw new Error(`${page.path}:${line} has a second ${file}`);
    sources.push({ page: page.path, line, name: file, code: after });
  }
  return sources;
}

/** The tables of one section, up to the next heading of the same level. */
export function tablesOf({ text }: Page, heading: string): Table[] {
  const tables: Table[] = [];
  let inside = false;
  let table: Table | undefined;
  for (const [index, line] of text.split('\n').entries()) {
    if (line.startsWith('## ')) inside = line === `## ${heading}`;
    if (!inside || !line.startsWith('|')) {
      table = undefined;
      continue;
    }
    const cells = line
      .split(/(?<!\\)\|/)
      .slice(1, -1)
      .map((cell) => cell.replaceAll('\\|', '|').replaceAll('`', '').trim());
    if (table === undefined) tables.push((table = { line: index + 1, header: cells, rows: [] }));
    else if (!cells.every((cell) => /^:?-+:?$/.test(cell))) table.rows.push({ line: index + 1, cells });
  }
  return tables;
}

export function headingsOf({ text }: Page): string[] {
  return [...withoutCode(text).matchAll(/^#{1,6} +(.+)$/gm)].map(([, heading]) => heading!);
}

/** The anchor that GitHub gives a heading. */
export function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-');
}

/** Links and images that point to files of this repository, or to anchors in them. */
export function linksOf({ text }: Page): string[] {
  const prose = withoutCode(text).replace(/`[^`]*`/g, '');
  const links = [...prose.matchAll(/\]\(([^)\s]+)[^)]*\)|(?:src|srcset|href)="([^"]+)"/g)];
  return links.map(([, link, attribute]) => (link ?? attribute)!).filter((link) => !/^[a-z]+:/.test(link));
}

function withoutCode(text: string): string {
  return text.replace(/^ *(`{3,})[^]*?^ *\1$/gm, '');
}

/**
 * Type-checks all sources with one strict run of TypeScript, in a folder that can import every package that a package or an example of this
 * workspace has installed. Returns the errors, such as `packages/session-core/README.md:41 error TS2322: ...`.
 */
export async function typeCheck(sources: Source[]): Promise<string[]> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), 'coatcheck-pages-')));
  try {
    await installEverything(folder);
    const write = async (path: string, text: string): Promise<void> => {
      await mkdir(dirname(join(folder, path)), { recursive: true });
      await writeFile(join(folder, path), text);
    };
    await write('package.json', JSON.stringify({ type: 'module' }));
    const compilerOptions = { noEmit: true, allowJs: true, checkJs: true, jsx: 'preserve', moduleDetection: 'force' };
    const config = { extends: join(workspace, 'tsconfig.base.json'), compilerOptions };
    await write('tsconfig.json', JSON.stringify(config));
    // Empty lines stand for the lines of the page before the block, so that TypeScript reports the right line.
    for (const { page, line, name, code } of sources) await write(join(page, name), '\n'.repeat(line - 1) + code);

    const problems = await runTsc(folder);
    return problems.map((problem) => problem.replace(/^(.*?\.md)\/\S+?\((\d+),\d+\):/, '$1:$2'));
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Makes the workspace's packages, and all dependencies of its packages and examples, importable in the folder. */
async function installEverything(folder: string): Promise<void> {
  const ours = globSync('packages/*', { cwd: workspace });
  const modules = ['{packages,examples,test/apps}/*/node_modules', 'node_modules'];
  const theirs = globSync(
    modules.flatMap((parent) => [`${parent}/[!.@]*`, `${parent}/@*/*`]),
    { cwd: workspace },
  );
  const installed = new Map(ours.map((path) => [path.replace('packages', '@coatcheck'), path]));
  // If there are several versions, that of a package wins over those of the root and the examples.
  for (const path of theirs.sort().reverse()) {
    const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
    if (!installed.has(name)) installed.set(name, path);
  }
  for (const [name, path] of installed) {
    const link = join(folder, 'node_modules', name);
    await mkdir(dirname(link), { recursive: true });
    await symlink(join(workspace, path), link);
  }
}

/** One line for each error. */
function runTsc(folder: string): Promise<string[]> {
  const tsc = join(workspace, 'node_modules/typescript/bin/tsc');
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [tsc, '--pretty', 'false'], { cwd: folder }, (error, stdout, stderr) => {
      if (error && stdout === '') reject(new Error(stderr, { cause: error }));
      else resolve(stdout.split(/\n(?! )/).filter((problem) => problem !== ''));
    });
  });
}
