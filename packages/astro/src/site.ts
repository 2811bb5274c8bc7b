import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseEnv } from 'node:util';
import type { SiteDriver } from './check-site.ts';

/** The part of Astro's final configuration that describes sessions. Astro 7 has `false`, too. */
export type SessionConfig =
  | false
  | {
      driver?: string | { entrypoint: string | URL; config?: Record<string, unknown> | undefined } | undefined;
      /** The options of a driver that is a string. */
      options?: Record<string, unknown> | undefined;
    }
  | undefined;

/**
 * Finds out whose driver a site has. A Coatcheck driver is recognized by the package that contains its entrypoint.
 *
 * @param root the folder of the site.
 */
export function driverOf(session: SessionConfig, root: string): SiteDriver {
  if (session === false) return { kind: 'none', disabled: true };
  const module = moduleOf(session);
  if (!module) return { kind: 'none' };
  const { path, name } = module;
  const owner = path === undefined ? installedPackage(packageIn(name), root) : packageOf(path);
  const ours = /^@coatcheck\/(session-[\w-]+)$/.exec(owner?.name ?? packageIn(name))?.[1];
  if (ours !== undefined) return { kind: 'coatcheck', name: ours, config: module.config ?? {} };
  if (path !== undefined && !isInstalled(path)) return { kind: 'own' };
  // Another package may create one of our drivers.
  const names = owner ? JSON.stringify([owner.dependencies, owner.peerDependencies, owner.optionalDependencies]) : '';
  if (`${names}${path === undefined ? '' : textOf(path)}`.includes('@coatcheck/')) return { kind: 'own' };
  const isPackage = owner !== undefined && owner.name !== 'unstorage';
  return { kind: 'other', name: path === undefined ? name : (owner?.name ?? path), isPackage };
}

/** The module that creates the driver of a site. */
interface DriverModule {
  /** As the configuration names it. */
  name: string;
  /** Its absolute path. Undefined if the name is one that only Astro can resolve. */
  path: string | undefined;
  config: Record<string, unknown> | undefined;
}

/** The module that creates the driver of a site; undefined if the site has none. */
export function moduleOf(session: SessionConfig): DriverModule | undefined {
  if (!session || session.driver === undefined) return undefined;
  const { driver, options } = session;
  const { entrypoint, config } = typeof driver === 'string' ? { entrypoint: driver, config: options } : driver;
  const name = entrypoint instanceof URL ? fileURLToPath(entrypoint) : entrypoint;
  return { name, path: isAbsolute(name) ? name : undefined, config };
}

/** The parts of a `package.json` that are used here. */
interface Manifest {
  name?: string;
  dependencies?: object;
  devDependencies?: object;
  peerDependencies?: object;
  optionalDependencies?: object;
}

/** The package that contains a file; undefined if it is in none. */
function packageOf(path: string): Manifest | undefined {
  const folder = dirname(path);
  return manifestIn(folder) ?? (folder === path ? undefined : packageOf(folder));
}

/** The package with this name that modules in a folder import; undefined if it is not installed. */
function installedPackage(name: string, folder: string): Manifest | undefined {
  const parent = dirname(folder);
  return (
    manifestIn(join(folder, 'node_modules', name)) ?? (parent === folder ? undefined : installedPackage(name, parent))
  );
}

function manifestIn(folder: string): Manifest | undefined {
  const path = join(folder, 'package.json');
  return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as Manifest) : undefined;
}

/** The name of the package in the name of a module: `@acme/sessions` in `@acme/sessions/driver`. */
function packageIn(module: string): string {
  return /^(?:@[^/]+\/)?[^/]*/.exec(module)![0];
}

/**
 * The Coatcheck drivers in the `package.json` of a site, such as `session-redis`. Without `session-core` and `session-unstorage`, which
 * need a module of the site.
 *
 * @param folder the root of the site.
 */
export function installedIn(folder: string): string[] {
  const { dependencies, devDependencies } = manifestIn(folder) ?? {};
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
