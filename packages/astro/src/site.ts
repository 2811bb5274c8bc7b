import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseEnv } from 'node:util';
import type { SiteDriver } from './check-site.ts';

/** The part of Astro's final configuration that describes sessions. Astro 7 has `false`, too. */
export type SessionConfig =
  | false
  | { driver?: string | { entrypoint: string | URL; config?: Record<string, unknown> | undefined } | undefined }
  | undefined;

/** Finds out whose driver a site has. A Coatcheck driver is recognized by the package that contains its entrypoint. */
export function driverOf(session: SessionConfig): SiteDriver {
  if (session === false) return { kind: 'none', disabled: true };
  const driver = session?.driver;
  if (driver === undefined) return { kind: 'none' };
  if (typeof driver === 'string') return { kind: 'other', name: driver };
  const path = entrypointOf(driver.entrypoint);
  if (path === undefined) return { kind: 'other', name: String(driver.entrypoint) };
  const name = packageOf(path);
  const ours = /^@coatcheck\/(session-[\w-]+)$/.exec(name ?? '')?.[1];
  if (ours !== undefined) return { kind: 'coatcheck', name: ours, config: driver.config ?? {} };
  return isInstalled(path) ? { kind: 'other', name: name ?? path } : { kind: 'own' };
}

/** The absolute path of a driver's entrypoint. Undefined if it is the name of a module, which only Astro can resolve. */
export function entrypointOf(entrypoint: string | URL): string | undefined {
  if (entrypoint instanceof URL) return fileURLToPath(entrypoint);
  return isAbsolute(entrypoint) ? entrypoint : undefined;
}

/** The name of the package that contains a file; undefined if it is in none, or the package has no name. */
function packageOf(path: string): string | undefined {
  const folder = dirname(path);
  const manifest = join(folder, 'package.json');
  if (existsSync(manifest)) return (JSON.parse(readFileSync(manifest, 'utf8')) as { name?: string }).name;
  return folder === path ? undefined : packageOf(folder);
}

/**
 * The Coatcheck drivers in the `package.json` of a site, such as `session-redis`. Without `session-core` and `session-unstorage`, which
 * need a module of the site.
 *
 * @param folder the root of the site.
 */
export function installedIn(folder: string): string[] {
  const manifest = join(folder, 'package.json');
  if (!existsSync(manifest)) return [];
  const { dependencies, devDependencies } = JSON.parse(readFileSync(manifest, 'utf8')) as Record<string, object>;
  return Object.keys({ ...dependencies, ...devDependencies }).flatMap(
    (name) => /^@coatcheck\/(session-(?!core$|unstorage$).+)$/.exec(name)?.[1] ?? [],
  );
}

function isInstalled(path: string): boolean {
  return /[\\/]node_modules[\\/]/.test(path);
}

/**
 * Returns a function that tells whether `astro dev` finds an environment variable: in the process, or in a file such as `.env` or
 * `.env.local`. It takes the files of all modes, because a warning must not be wrong.
 *
 * @param folder where the files are.
 */
export function variablesIn(folder: string): (name: string) => boolean {
  let values: NodeJS.Dict<string> | undefined;
  return (name) => Boolean(process.env[name] ?? (values ??= valuesIn(folder))[name]);
}

function valuesIn(folder: string): NodeJS.Dict<string> {
  if (!existsSync(folder)) return {};
  const entries = readdirSync(folder, { withFileTypes: true }).filter(
    // A folder with such a name may be a virtual environment of Python.
    (entry) => !entry.isDirectory() && /^\.env(?:\.(?!example|sample|template)|$)/.test(entry.name),
  );
  return Object.assign({}, ...entries.map(({ name }) => parseEnv(textOf(join(folder, name)))));
}

/** The text of a file. Empty if it cannot be read: the site has an error then, if it needs the file. */
function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
