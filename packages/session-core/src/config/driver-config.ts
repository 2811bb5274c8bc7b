import type { SessionDriverConfig } from '../contract/driver.ts';
import { createError } from '../contract/errors.ts';
import { warnOnce } from '../platform/warn-once.ts';
import { isEnvRef } from './env.ts';

import {
  allKinds,
  group,
  isData,
  type OptionKind,
  type OptionKinds,
  readWith,
  type SharedOptions,
  MAX_DEPTH,
} from './option.ts';

/**
 * Creates the value of `session.driver` in `astro.config`. A driver's config function returns its result. It checks the options that are
 * already known when the config is evaluated, and logs a warning once when the config contains a secret.
 *
 * @param packageName the package that users install, with its scope. Error messages name it.
 * @param ownKinds the kinds of the driver's own options. The shared options are added.
 * @param config the options from the user.
 * @param entrypoint the module that Astro loads when the server runs: `new URL('./astro.js', import.meta.url)`.
 * @throws an error with the code `configuration` for an unknown option, for a wrong value, and for a value that JSON cannot represent.
 * @example
 * export const thingDriver = (config?: ThingDriverConfig) =>
 *   driverConfig('@acme/session-thing', thingKinds, config, new URL('./astro.js', import.meta.url));
 */
export function driverConfig<Config extends object>(
  packageName: string,
  ownKinds: OptionKinds<Omit<Config, keyof SharedOptions>>,
  config: Config | undefined,
  entrypoint: URL,
): SessionDriverConfig {
  const driver = driverName(packageName);
  const kinds = allKinds<Config>(ownKinds);
  for (const [name, value] of Object.entries(config ?? {})) {
    if (!isEnvRef(value) || !(kinds as Record<string, OptionKind<unknown>>)[name]?.isComposed) continue;
    throw createError(
      driver,
      'configuration',
      `\`${name}\` cannot be read from an environment variable as a whole. Use fromEnv() for its parts.`,
    );
  }
  const literal = readWith(driver, kinds, checkJson(packageName, config ?? {}, []));
  if (group(kinds).holdsSecret?.(literal)) warnOfSecret(driver);
  return { entrypoint, config: { ...config } };
}

// Environment variables are left out: their values are not known before the server runs.
function checkJson(packageName: string, value: unknown, path: string[]): unknown {
  if (isEnvRef(value)) return undefined;
  if (path.length < MAX_DEPTH && Array.isArray(value)) {
    const items = Array.from(value, (item, index) => checkJson(packageName, item, [...path, String(index)]));
    return items.includes(undefined) ? undefined : items;
  }
  if (path.length < MAX_DEPTH && typeof value === 'object' && value !== null && isData(value)) {
    const items = Object.entries(value)
      .filter(([, item]) => item !== undefined)
      .map(([name, item]) => [name, checkJson(packageName, item, [...path, name])]);
    return Object.fromEntries(items);
  }
  const survives =
    value === null ||
    typeof value === 'string' ||
    typeof value === 'boolean' ||
    (typeof value === 'number' && Number.isFinite(value));
  if (survives) return value;
  throw createError(
    driverName(packageName),
    'configuration',
    `${path.length > 0 ? `The option \`${path.join('.')}\`` : 'The config'} does not survive the build: the config is ` +
      `serialized to JSON, which keeps strings, finite numbers, booleans, arrays and plain objects. To pass anything else, write your own ` +
      `entrypoint around "${packageName}/runtime".`,
  );
}

/** The name of a driver in errors and at runtime. Our own packages are named without the scope. */
function driverName(packageName: string): string {
  return packageName.replace(/^@coatcheck\//, '');
}

function warnOfSecret(driver: string): void {
  warnOnce(
    driver,
    `A secret is written into the options, directly or through process.env, and will be readable in the build output. Leave the option ` +
      `out, so that the server reads its usual environment variable when it runs, or use fromEnv('NAME').`,
  );
}
