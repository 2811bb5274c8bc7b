import { createError } from '../contract/errors.ts';
import { isEnvRef, type ReadEnv } from './env.ts';

import { allKinds, isData, type OptionKinds, readWith, type Resolved, type SharedOptions, TOO_DEEP } from './option.ts';

/** A config with every variable read, and every value of its kind. */
export function resolveOptions<Config extends object>(
  driver: string,
  ownKinds: OptionKinds<Omit<Config, keyof SharedOptions>>,
  config: Config,
  readEnv: ReadEnv,
): Resolved<Config> {
  // Astro's Cloudflare adapter adds a KV binding of the name SESSION to the options of whatever driver there is.
  const { binding: _added, ...own } = config as Config & { binding?: unknown };
  const withoutRefs = replaceRefs(own, (name) => {
    const value = readEnv(name);
    if (value === undefined || value === '') throw missingVariable(driver, name);
    return value;
  });
  return readWith(driver, allKinds<Config>(ownKinds), withoutRefs);
}

/**
 * The error for a variable that a driver needs. Built servers do not read `.env` by themselves, which is what most people meet.
 *
 * @param option the option that serves as well.
 */
export function missingVariable(driver: string, name: string, option?: string): Error {
  return createError(
    driver,
    'configuration',
    `${name} is not set. Set it in the environment of the server${option === undefined ? '' : `, or pass \`${option}\``}. \`astro dev\` reads it ` +
      `from .env by itself; a built server does with \`node --env-file=.env dist/server/entry.mjs\`.`,
  );
}

function replaceRefs(value: unknown, replace: (name: string) => unknown, depth = 0): unknown {
  if (isEnvRef(value)) return replace(value.fromEnv);
  if (typeof value !== 'object' || value === null || !isData(value) || depth === TOO_DEEP) return value;
  if (Array.isArray(value)) return value.map((item) => replaceRefs(item, replace, depth + 1));
  const given = Object.entries(value).filter(([, item]) => item !== undefined);
  return Object.fromEntries(given.map(([name, item]) => [name, replaceRefs(item, replace, depth + 1)]));
}
