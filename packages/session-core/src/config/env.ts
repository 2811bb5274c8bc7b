/**
 * An option that is read from the environment when the server runs. A plain object, because a config goes through JSON when a site
 * is built; the value of the variable never does.
 */
export interface EnvRef {
  readonly fromEnv: string;
}

/** An option as a user may write it: the value, or where to find it when the server runs. */
export type FromEnv<Value> = Value | EnvRef | undefined;

/** How variables are read: `getSecret` of `astro:env/server` in an Astro site, which also sees `.env` in `astro dev`. */
export type ReadEnv = (name: string) => string | undefined;

/**
 * Stands for the value of an environment variable, wherever a driver's option takes text, a number or a boolean. It is read when the
 * driver first needs it, so that the value never becomes part of a build, and must be the whole option: in a template string it throws.
 *
 * @param name the variable's name. Throws a TypeError when that is no name that a variable can have.
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

/** The variables of this process, for servers that are not Astro. */
export const readProcessEnv: ReadEnv = (name) => globalThis.process?.env?.[name];
