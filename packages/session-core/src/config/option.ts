import { createError } from '../contract/errors.ts';
import { unknownOption } from './unknown-option.ts';

import type { EnvRef, FromEnv } from './env.ts';

/** The kind of an option: how its value is validated and converted. */
export interface OptionKind<Value> {
  /**
   * Converts what the user wrote, or the string from an environment variable, to the value.
   *
   * @throws an Error with the message `expected ...` when the input is wrong.
   */
  read(raw: unknown): Value;
  /** Whether this value contains a secret. Used to warn when it is written into a config. Absent: it never does. */
  holdsSecret?(value: Value): boolean;
  /** Whether the option is an object whose parts can be read from environment variables, but not the whole object. */
  isComposed?: boolean;
}

/** The kind of every option of a config. The compiler reports an option without a kind, and unknown options are rejected at runtime. */
export type OptionKinds<Config> = {
  readonly [Name in keyof Required<Config>]: OptionKind<ResolvedOption<Config[Name]>>;
};

type ResolvedOption<Value> = Exclude<Value, EnvRef | undefined>;

/** A config after environment variables have been read and all values have been validated. An option that is not set is undefined. */
export type Resolved<Config> = { readonly [Name in keyof Config]: ResolvedOption<Config[Name]> | undefined };

/** A non-empty string. */
export const string: OptionKind<string> = {
  read: (raw) => (typeof raw === 'string' && raw !== '' ? raw : expected('a non-empty string')),
};

/** A non-empty string that is a secret, such as a password. Writing it into a config logs a warning. */
export const secretString: OptionKind<string> = { ...string, holdsSecret: () => true };

/** A secret for an HTTP header, such as a bearer token. The header's own error would quote an invalid one. */
export const token: OptionKind<string> = {
  holdsSecret: () => true,
  read(raw) {
    if (typeof raw === 'string' && /^[!-~]+$/.test(raw)) return raw;
    throw new Error('expected a token, without spaces or quotes around it');
  },
};

// Rejects short and repetitive strings. It does not prove that a secret is random.
const STRONG_LENGTH = 32;
const STRONG_VARIETY = 10;

const strongSecret: OptionKind<string> = {
  read: (raw) =>
    typeof raw === 'string' && raw.length >= STRONG_LENGTH && new Set(raw).size >= STRONG_VARIETY
      ? raw
      : expected(`secrets of at least ${STRONG_LENGTH} random characters each; \`openssl rand -base64 32\` makes one`),
  holdsSecret: () => true,
};

/** `true` or `false`. In an environment variable also `1` or `0`. */
export const boolean: OptionKind<boolean> = {
  read(raw) {
    if (raw === true || raw === 'true' || raw === '1') return true;
    if (raw === false || raw === 'false' || raw === '0') return false;
    return expected('true or false');
  },
};

/**
 * A whole number.
 *
 * @param from the smallest allowed value. Default: 0.
 * @param to the largest allowed value. Default: `Number.MAX_SAFE_INTEGER`.
 */
export function integer({
  from = 0,
  to = Number.MAX_SAFE_INTEGER,
}: { from?: number; to?: number } = {}): OptionKind<number> {
  return {
    read(raw) {
      const value = toNumber(raw);
      const fits = Number.isInteger(value) && (value as number) >= from && (value as number) <= to;
      const range = to === Number.MAX_SAFE_INTEGER ? `${from} or more` : `from ${from} to ${to}`;
      return fits ? (value as number) : expected(`a whole number, ${range}`);
    },
  };
}

/** A positive, finite number of seconds. Fractions are allowed. */
export const seconds: OptionKind<number> = {
  read(raw) {
    const value = toNumber(raw);
    return typeof value === 'number' && value > 0 && Number.isFinite(value)
      ? value
      : expected('a positive number of seconds');
  },
};

/** The same kind, or `false`. */
export function orFalse<Value>(kind: OptionKind<Value>): OptionKind<Value | false> {
  return {
    ...kind,
    read(raw) {
      if (raw === false || raw === 'false') return false;
      try {
        return kind.read(raw);
      } catch (error) {
        return expected(`${(error as Error).message.replace('expected ', '')}, or false`);
      }
    },
    holdsSecret: (value) => value !== false && (kind.holdsSecret?.(value) ?? false),
  };
}

/** A date such as `2027-01-31`, which means midnight UTC, or a date with a time and a time zone. */
const date: OptionKind<string> = {
  read(raw) {
    const [, day] = (typeof raw === 'string' && DATE.exec(raw)) || [];
    // JavaScript turns February 30 into March 2, so compare the parsed date with the input.
    const exists = day !== undefined && new Date(`${day}T00:00Z`).toJSON()?.startsWith(day);
    return exists && !Number.isNaN(Date.parse(raw as string))
      ? (raw as string)
      : expected("a date such as '2027-01-31', or one with a time such as '2027-01-31T08:00Z'");
  },
};

const DATE = /^(\d{4}-\d\d-\d\d)(?:T\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d))?$/;

/** One of these strings. */
export function picklist<const Value extends string>(...values: Value[]): OptionKind<Value> {
  return {
    read: (raw) => values.find((value) => value === raw) ?? expected(values.map((value) => `'${value}'`).join(' or ')),
  };
}

/**
 * An object with these methods, such as a client that the app has created.
 *
 * @param what describes the object in error messages.
 */
export function objectWith<Client extends object>(
  what: string,
  ...methods: (keyof Client & string)[]
): OptionKind<Client> {
  return {
    read(raw) {
      return methods.every((method) => hasMethod(raw, method))
        ? (raw as Client)
        : expected(`${what}, with the methods ${methods.join(', ')}`);
    },
  };
}

/** A non-empty list. In an environment variable, its items are separated by commas. */
export function list<Value>(item: OptionKind<Value>): OptionKind<Value[]> {
  return {
    read(raw) {
      const items = typeof raw === 'string' ? raw.split(',').map((part) => part.trim()) : raw;
      return Array.isArray(items) && items.length > 0 ? items.map((part) => item.read(part)) : expected('a list');
    },
    holdsSecret: (values) => values.some((value) => item.holdsSecret?.(value)),
  };
}

/** An object with its own options. */
export function group<Config extends object>(kinds: OptionKinds<Config>): OptionKind<Resolved<Config>> {
  const known = Object.entries(kinds) as [keyof Config & string, OptionKind<unknown>][];
  return {
    read(raw) {
      if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) return expected('an object');
      const unknown = unknownOption(
        raw,
        known.map(([name]) => name),
      );
      if (unknown !== undefined) throw new Error(unknown);
      const resolved: Record<string, unknown> = {};
      for (const [name, kind] of known) {
        const value = (raw as Record<string, unknown>)[name];
        if (value === undefined) continue;
        try {
          resolved[name] = kind.read(value);
        } catch (error) {
          throw new Error(`\`${name}\`: ${(error as Error).message}`, { cause: error });
        }
      }
      return resolved as Resolved<Config>;
    },
    holdsSecret: (value) =>
      known.some(([name, kind]) => value[name] !== undefined && (kind.holdsSecret?.(value[name]) ?? false)),
  };
}

/**
 * The options that every driver has. Each can be `fromEnv('NAME')`, except `migrateFrom`, whose parts can. The server then reads that
 * environment variable when it runs.
 */
export interface SharedOptions {
  /**
   * The start of every key in the backend. Sites that share a backend need different ones.
   *
   * @default 'session:'
   */
  prefix?: string | EnvRef | undefined;
  /**
   * Absolute expiration: how long a session lives after its last write, in seconds, if no other ttl is set (Astro's `session.ttl`, or the
   * `ttl` of one value). `false`: it does not expire.
   *
   * @default 2_592_000 (30 days)
   */
  ttl?: number | false | EnvRef | undefined;
  /**
   * Sliding expiration: the session expires after this many seconds without a read or a write, whatever its ttl. Needs a backend with
   * atomic changes; with others, every operation fails with the code `configuration`.
   *
   * @default no limit
   */
  idleTtl?: number | EnvRef | undefined;
  /**
   * How long one operation may take, in milliseconds, from 1 to 600,000, including connecting and retrying. At this deadline, it fails with
   * the code `timeout`.
   *
   * @default 5000
   */
  timeout?: number | EnvRef | undefined;
  /**
   * Encryption at rest: encrypts stored data, including key names. Random strings of at least 32 characters, separated by commas in an
   * environment variable. The first encrypts, all decrypt.
   *
   * @default not encrypted
   */
  secrets?: readonly string[] | EnvRef | undefined;
  /**
   * Migrates legacy sessions, so that users stay signed in: sessions of Astro's own driver in this backend, sessions under another
   * `prefix`, and sessions that are not encrypted yet. Needs the date on which the migration ends.
   *
   * @default false
   */
  migrateFrom?: false | MigrateFrom | undefined;
}

/** Where legacy sessions are, and until when they are migrated. */
export interface MigrateFrom {
  /**
   * The date on which the migration ends, such as `2027-01-31` (midnight UTC), or with a time: `2027-01-31T08:00Z`. After it the option has
   * no effect, and a warning is logged. Until then, no other software may write user-controlled strings into the keys of Astro's driver:
   * such a string could become a session.
   */
  until: string | EnvRef;
  /**
   * The option `base` of Astro's own driver.
   *
   * @default the default of that driver
   */
  base?: FromEnv<string>;
  /**
   * The earlier `prefix` of this driver.
   *
   * @default sessions under another prefix are not migrated
   */
  prefix?: FromEnv<string>;
}

const migrateFrom: OptionKind<false | MigrateFrom> = {
  isComposed: true,
  read(raw) {
    if (raw === false) return false;
    if (typeof raw !== 'object' || raw === null || !('until' in raw))
      return expected("an object with the date on which it ends, such as { until: '2027-01-31' }, or false");
    return group<MigrateFrom>({ until: date, base: string, prefix: string }).read(raw) as MigrateFrom;
  },
};

/** The kinds of all options of a driver: the shared ones and its own. */
export function allKinds<Config extends object>(
  own: OptionKinds<Omit<Config, keyof SharedOptions>>,
): OptionKinds<Config> {
  const shared: OptionKinds<SharedOptions> = {
    prefix: string,
    ttl: orFalse(seconds),
    idleTtl: seconds,
    timeout: integer({ from: 1, to: 600_000 }),
    secrets: list(strongSecret),
    migrateFrom,
  };
  return { ...shared, ...own } as unknown as OptionKinds<Config>;
}

/**
 * Validates a config.
 *
 * @throws an error with the code `configuration` when the config is wrong.
 */
export function readWith<Config extends object>(
  driver: string,
  kinds: OptionKinds<Config>,
  config: unknown,
): Resolved<Config> {
  try {
    return group(kinds).read(config);
  } catch (error) {
    throw createError(driver, 'configuration', `Wrong options: ${(error as Error).message}.`);
  }
}

/** Whether a value has a method. */
export function hasMethod(value: unknown, name: string): boolean {
  return typeof (value as Record<string, unknown> | null | undefined)?.[name] === 'function';
}

/** Whether a value is plain data. Functions and objects with behavior, such as a Worker's binding, are not. */
export function isData(value: unknown): boolean {
  if (typeof value === 'function') return false;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return true;
  const prototype: unknown = Object.getPrototypeOf(value);
  // Without a prototype, it is a binding that Wrangler's `getPlatformProxy` has created in Node.
  return prototype === Object.prototype;
}

/**
 * The maximum nesting depth of a config. No option is nested this deeply; deeper values, such as an object that contains itself, are
 * rejected.
 */
export const MAX_DEPTH = 10;

/** A variable is a string. */
function toNumber(raw: unknown): unknown {
  return typeof raw === 'string' && raw.trim() !== '' ? Number(raw) : raw;
}

function expected(what: string): never {
  throw new Error(`expected ${what}`);
}
