import { globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

// Lists the imports in the source of the packages.

export const workspace: string = fileURLToPath(new URL('../../', import.meta.url));

export interface Import {
  from: string;
  what: string;
  typeOnly: boolean;
  dynamic: boolean;
}

/** The modules of the packages that match a pattern such as `packages/*`, as paths in the workspace. */
export function modulesOf(packages: string): string[] {
  return globSync(`${packages}/src/**/*.ts`, { cwd: workspace }).sort();
}

/** All imports and re-exports of a module, including types and dynamic imports. A relative import is given as the path of that file. */
export function importsOf(from: string): Import[] {
  const text = readFileSync(join(workspace, from), 'utf8').replaceAll(/^\s*(?:\/\*.*?\*\/|\/\/[^\n]*)/gms, '');
  const statement =
    /^(?:import|export)\s+(?<type>type\s+)?(?:[^'"`;()]*?\sfrom\s+)?'(?<what>[^']+)'|\bimport\('(?<late>[^']+)'\)/gm;
  return [...text.matchAll(statement)].map(({ groups: { type, what, late } = {} }) => {
    const specifier = late ?? what!;
    const own = specifier.startsWith('.');
    return {
      from,
      what: own ? join(dirname(from), specifier) : specifier,
      typeOnly: type !== undefined,
      dynamic: late !== undefined,
    };
  });
}

export function isBare(what: string): boolean {
  return !what.startsWith('packages/');
}
