import { createError } from '../contract/errors.ts';
import { hasMethod, type OptionKind } from './option.ts';

/** The kind of a binding of a Cloudflare Worker. */
export interface BindingKind<Client> extends OptionKind<Client> {
  /** Whether a value is such a binding. */
  fits(value: unknown): value is Client;
}

/**
 * A binding that has all these methods. Nothing else is checked, so that a replacement in Node counts too, such as one of Wrangler's
 * `getPlatformProxy()`. A service binding seems to have every method, also `fetch`, so it does not count.
 *
 * @param what describes it in errors, such as 'a KV namespace'.
 */
export function binding<Client extends object>(
  what: string,
  ...methods: (keyof Client & string)[]
): BindingKind<Client> {
  const fits = (value: unknown): value is Client =>
    methods.every((method) => hasMethod(value, method)) && !hasMethod(value, 'fetch');
  return {
    fits,
    read(raw) {
      if (fits(raw)) return raw;
      throw new Error(`expected ${what}`);
    },
  };
}

/** A binding that a driver needs in the environment of a Cloudflare Worker. */
export interface NeededBinding {
  /** The driver's name. */
  driver: string;
  /** What it binds, such as `KV namespace`. */
  kind: string;
  /** The option with the name of the binding. */
  option: string;
  /** What to do to get one: sentences, and lines to paste. */
  setup: string;
}

/**
 * The error for a binding that is missing, or that binds something else.
 *
 * @param env the environment of the Worker. Undefined if this is not a Worker.
 */
export function missingBinding(
  env: Record<string, unknown> | undefined,
  name: string,
  { driver, kind, option, setup }: NeededBinding,
): Error {
  const problem = env?.[name] === undefined ? 'has no' : 'has a variable that is not a';
  return createError(
    driver,
    'configuration',
    env
      ? `The Worker's environment ${problem} ${kind}: \`${name}\`. ${setup}\n\n` +
          `To use a binding with another name, set the option \`${option}\` to that name.`
      : `This is not a Cloudflare Worker: the ${kind} \`${name}\` cannot be found without the module \`cloudflare:workers\`. Use ` +
          `\`@astrojs/cloudflare\`, or pass the ${kind} itself to "@coatcheck/${driver}/runtime" as \`client\`.`,
  );
}
