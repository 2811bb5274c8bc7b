import { createError } from '../contract/errors.ts';
import { isEnvRef, type ReadEnv } from './env.ts';

import {
  allKinds,
  isData,
  type OptionKind,
  type OptionKinds,
  readWith,
  type Resolved,
  type SharedOptions,
  MAX_DEPTH,
} from './option.ts';

/**
 * Reads all environment variables of a config, and validates it.
 *
 * @throws an error with the code `configuration` when a variable is missing or a value is wrong.
 */
export function resolveOptions<Config extends object>(
  driver: string,
  ownKinds: OptionKinds<Omit<Config, keyof SharedOptions>>,
  config: Config,
  readEnv: ReadEnv,
): Resolved<Config> {
  // Astro's Cloudflare adapter adds the option `binding` (the KV binding SESSION) to the options of every driver.
  const { binding: _addedByAdapter, ...own } = config as Config & { binding?: unknown };
  const withoutRefs = replaceRefs(own, (name) => {
    const value = readEnv(name);
    if (value === undefined || value === '') throw missingVariable(driver, name);
    return value;
  });
  return readWith(driver, allKinds<Config>(ownKinds), withoutRefs);
}

/**
 * Creates the error for a missing environment variable. The message also explains how to load `.env`, because a built server does not read
 * it by itself.
 *
 * @param driver the driver's name, such as `session-redis`.
 * @param name the name of the variable.
 * @param option the option that can be set instead, if there is one.
 */
export function missingVariable(driver: string, name: string, option?: string): Error {
  return createError(
    driver,
    'configuration',
    `${name} is not set. Set it in the environment of the server${option === undefined ? '' : `, or pass \`${option}\``}. \`astro dev\` reads ` +
      `.env by itself. A built server needs \`node --env-file=.env dist/server/entry.mjs\`.`,
  );
}

function replaceRefs(value: unknown, replace: (name: string) => unknown, depth = 0): unknown {
  if (isEnvRef(value)) return replace(value.fromEnv);
  if (typeof value !== 'object' || value === null || !isData(value) || depth === MAX_DEPTH) return value;
  if (Array.isArray(value)) return value.map((item) => replaceRefs(item, replace, depth + 1));
  const defined = Object.entries(value).filter(([, item]) => item !== undefined);
  return Object.fromEntries(defined.map(([name, item]) => [name, replaceRefs(item, replace, depth + 1)]));
}

/**
 * Validates a value that may come from an environment variable as the option for which the variable stands.
 *
 * @param driver the driver's name, for the error.
 * @param name the name of the variable, for the error.
 * @throws an error with the code `configuration` when the value is wrong. It does not contain the value.
 */
export function readVariable<Value>(driver: string, kind: OptionKind<Value>, name: string, value: string): Value {
  try {
    return kind.read(value);
  } catch (error) {
    throw createError(driver, 'configuration', `${name}: ${(error as Error).message}.`);
  }
}
