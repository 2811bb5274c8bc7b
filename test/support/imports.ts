import { globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

// Who imports what in the source of the packages.

export const workspace: string = fileURLToPath(new URL('../../', import.meta.url));

export interface Import {
  from: string;
  what: string;
  typeOnly: boolean;
  dynamic: boolean;
}

/** The modules of some packages, such as `packages/*`, by their paths in the workspace. */
export function modulesOf(packages: string): string[] {
  return globSync(`${packages}/src/**/*.ts`, { cwd: workspace }).sort();
}

/** Imports and re-exports, with those of types and those under way; one of an own file as that file. */
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
