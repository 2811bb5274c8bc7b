/**
 * A reference to an environment variable. The server reads the variable when it runs. It is a plain object, because the config is
 * serialized to JSON when a site is built. Only the name becomes part of the build.
 */
export interface EnvRef {
  /** The name of the environment variable. */
  readonly fromEnv: string;
}

/** An option as a user writes it: its value, or a reference to an environment variable. */
export type FromEnv<Value> = Value | EnvRef | undefined;

/**
 * Reads an environment variable; undefined when it is not set. In an Astro site this is `getSecret` of `astro:env/server`, which also reads
 * `.env` in `astro dev`.
 */
export type ReadEnv = (name: string) => string | undefined;

/**
 * Reads an option from an environment variable when the server runs. The value does not become part of the build. The driver reads the
 * variable when it first needs it, and converts it to the type of the option.
 *
 * The result must be the whole option. Using it inside a template string or a sum throws a TypeError.
 *
 * @param name the name of the variable.
 * @throws a TypeError when `name` is not a valid name of an environment variable.
 * @example
 * redisDriver({ url: fromEnv('SESSION_REDIS_URL') });
 */
export function fromEnv(name: string): EnvRef {
  if (!isName(name)) {
    throw new TypeError('fromEnv() takes the name of an environment variable, such as fromEnv("REDIS_URL").');
  }
  const refuse = () => {
    throw new TypeError(`fromEnv("${name}") must be the whole option; it cannot be part of a string or a sum.`);
  };
  return Object.defineProperty({ fromEnv: name }, Symbol.toPrimitive, { value: refuse });
}

/** Whether a value is a reference that `fromEnv` created, possibly serialized to JSON since. */
export function isEnvRef(value: unknown): value is EnvRef {
  return (
    typeof value === 'object' &&
    value !== null &&
    isName((value as Partial<EnvRef>).fromEnv) &&
    Object.keys(value).length === 1
  );
}

function isName(name: unknown): boolean {
  return typeof name === 'string' && /^[A-Za-z_]\w*$/.test(name);
}

/** Reads variables from `process.env`, for servers that are not built with Astro. */
export const readProcessEnv: ReadEnv = (name) => globalThis.process?.env?.[name];
