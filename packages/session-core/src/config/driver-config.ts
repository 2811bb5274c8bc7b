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
  TOO_DEEP,
} from './option.ts';

/**
 * What a driver's config function returns. Everything that can be known at the call is checked there: unknown options, values of the
 * wrong kind, and values that would not survive the JSON that a config goes through. Warns once when a secret is written into the
 * config.
 *
 * @param packageName the package that users install, with its scope: errors name it.
 * @param ownKinds the kinds of the driver's own options; those that every driver has are known.
 * @param entrypoint the module that Astro loads when the server runs: `new URL('./astro.js', import.meta.url)`.
 * @throws an Error with the code `configuration` for what is wrong.
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
      `\`${name}\` cannot be read from a variable as a whole, but its parts can.`,
    );
  }
  const literal = readWith(driver, kinds, checkJson(packageName, config ?? {}, []));
  if (group(kinds).holdsSecret?.(literal)) warnOfSecret(driver);
  return { entrypoint, config: { ...config } };
}

// References are left out: what they stand for is not known before the server runs.
function checkJson(packageName: string, value: unknown, path: string[]): unknown {
  if (isEnvRef(value)) return undefined;
  if (path.length < TOO_DEEP && Array.isArray(value)) {
    const items = Array.from(value, (item, index) => checkJson(packageName, item, [...path, String(index)]));
    return items.includes(undefined) ? undefined : items;
  }
  if (path.length < TOO_DEEP && typeof value === 'object' && value !== null && isData(value)) {
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
    `${path.length > 0 ? `The option \`${path.join('.')}\`` : 'What was passed'} does not survive the build: a config goes through ` +
      `JSON, which keeps text, finite numbers, booleans, lists and plain objects. To pass anything else, write an entrypoint of your ` +
      `own around "${packageName}/runtime".`,
  );
}

/** What errors begin with, and what a runtime calls its driver: packages of our own go without the scope. */
function driverName(packageName: string): string {
  return packageName.replace(/^@coatcheck\//, '');
}

function warnOfSecret(driver: string): void {
  warnOnce(
    driver,
    `A secret is written into the options, or came there by way of process.env: it will be readable in the build ` +
      `output. Leave the option out to have its conventional variable read when the server runs, or use fromEnv('NAME').`,
  );
}
