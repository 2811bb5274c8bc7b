import { afterEach, describe, expect, it, vi } from 'vitest';
import { driverConfig } from '../src/config/driver-config.ts';
import { type EnvRef, fromEnv, type FromEnv } from '../src/config/env.ts';
import {
  boolean,
  group,
  list,
  picklist,
  type OptionKinds,
  secretString,
  type SharedOptions,
  string,
  integer,
} from '../src/config/option.ts';
import { resolveOptions } from '../src/config/resolve.ts';

interface ExampleConfig extends SharedOptions {
  url?: string | EnvRef | undefined;
  password?: string | EnvRef | undefined;
  db?: FromEnv<number>;
  fast?: FromEnv<boolean>;
  mode?: FromEnv<'strong' | 'weak'>;
  names?: string[] | EnvRef | undefined;
  nodes?: { host?: FromEnv<string>; port?: FromEnv<number> }[] | undefined;
}

const kinds: OptionKinds<Omit<ExampleConfig, keyof SharedOptions>> = {
  url: string,
  password: secretString,
  db: integer({ to: 15 }),
  fast: boolean,
  mode: picklist('strong', 'weak'),
  names: list(string),
  nodes: list(
    group<{ host?: FromEnv<string>; port?: FromEnv<number> }>({ host: string, port: integer({ from: 1, to: 65_535 }) }),
  ),
};

const entrypoint = new URL('file:///somewhere/astro.js');
const configure = (config: unknown) => driverConfig('session-example', kinds, config as ExampleConfig, entrypoint);
const resolve = (config: unknown, variables: Record<string, string> = {}) =>
  resolveOptions('session-example', kinds, config as ExampleConfig, (name) => variables[name]);

afterEach(() => void vi.restoreAllMocks());

describe('a config function', () => {
  it('returns what Astro expects, without values that JSON would lose', () => {
    const config = {
      url: 'there',
      ttl: false as const,
      db: 3,
      names: ['a'],
      nodes: [{ host: fromEnv('HOST'), port: 1 }],
    };
    const result = configure(config);
    expect(result.entrypoint).toBe(entrypoint);
    expect(JSON.parse(JSON.stringify(result.config))).toEqual({
      ...config,
      nodes: [{ host: { fromEnv: 'HOST' }, port: 1 }],
    });
    expect(configure(undefined)).toEqual({ entrypoint, config: {} });
    expect(configure({ url: process.env['NOT_SET_ANYWHERE'] })).toEqual({ entrypoint, config: { url: undefined } });
  });

  it.each([
    [{ urll: 'x' }, '`urll` is not an option. Options: prefix, ttl, idleTtl, timeout, secrets, migrateFrom, url,'],
    [{ db: 16 }, '`db`: expected a whole number, from 0 to 15'],
    [{ db: 1.5 }, '`db`: expected a whole number'],
    [{ ttl: 0 }, '`ttl`: expected a positive number of seconds, or false'],
    [{ ttl: '1h' }, '`ttl`: expected a positive number of seconds, or false'],
    [{ timeout: -1 }, '`timeout`: expected a whole number, from 1 to 600000'],
    [{ prefix: '' }, '`prefix`: expected a non-empty string'],
    [{ fast: 'maybe' }, '`fast`: expected true or false'],
    [{ mode: 'eventual' }, "`mode`: expected 'strong' or 'weak'"],
    [{ names: [] }, '`names`: expected a list'],
    [{ nodes: [{ hots: 'x' }] }, '`nodes`: `hots` is not an option.'],
    [{ nodes: [{ host: 'x', port: 'y' }] }, '`nodes`: `port`: expected a whole number'],
    [{ idleTtl: null }, '`idleTtl`: expected a positive number of seconds'],
  ])('rejects %j', (config, message) => {
    expect(() => configure(config)).toThrow(`[session-example] Wrong options: ${message}`);
  });

  it.each([
    ['a function', () => 'x'],
    ['a Date', new Date()],
    ['a Map', new Map()],
    ['a RegExp', /x/],
    ['Infinity', Infinity],
    ['NaN', NaN],
    ['a bigint', 1n],
    ['an instance', new URL('http://localhost')],
  ])('rejects %s, which would not survive the build', (_name, url) => {
    expect(() => configure({ url })).toThrow('The option `url` does not survive the build');
    expect(() => configure({ nodes: [{ host: url }] })).toThrow('The option `nodes.0.host` does not survive the build');
  });

  it.each([
    ['undefined', [undefined]],
    // oxlint-disable-next-line no-sparse-arrays
    ['a hole', [, 'a']],
    ['a property next to `fromEnv`', [{ fromEnv: 'NAME', or: () => 'a' }]],
  ])('rejects a list with %s', (_name, names) => {
    expect(() => configure({ names })).toThrow(/`names/);
  });

  it('errors name the driver and the package that the user has installed', () => {
    const author = () =>
      driverConfig('@acme/session-example', kinds, { url: new URL('http://localhost') as never }, entrypoint);
    expect(author).toThrow(/^\[@acme\/session-example\] .* around "@acme\/session-example\/runtime"\.$/);
    const ours = () =>
      driverConfig('@coatcheck/session-example', kinds, { url: new URL('http://localhost') as never }, entrypoint);
    expect(ours).toThrow(/^\[session-example\] .* around "@coatcheck\/session-example\/runtime"\.$/);
  });

  it('rejects an object that contains itself, in the config and at runtime', async () => {
    const circle: Record<string, unknown> = {};
    circle['circle'] = circle;
    expect(() => configure({ nodes: [circle] })).toThrow('does not survive the build');
    expect(() => resolve({ nodes: [circle] }, {})).toThrow('`circle` is not an option');
  });

  it('warns once when the config contains a secret, and says what to do instead', () => {
    const warn = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    configure({ password: fromEnv('PASSWORD') });
    expect(warn).not.toHaveBeenCalled();
    configure({ password: 'hunter2' });
    configure({ password: 'hunter2' });
    expect(warn).toHaveBeenCalledTimes(1);
    expect(warn.mock.calls[0]![0]).toContain("fromEnv('NAME')");
    expect(warn.mock.calls[0]![0]).not.toContain('hunter2');
  });
});

describe('options when the server runs', () => {
  it('can come from environment variables, and are converted to their types', () => {
    const config = {
      url: fromEnv('URL'),
      db: fromEnv('DB'),
      fast: fromEnv('FAST'),
      ttl: fromEnv('TTL'),
      mode: fromEnv('MODE'),
      names: fromEnv('NAMES'),
      nodes: [{ host: fromEnv('HOST'), port: fromEnv('PORT') }],
    };
    const variables = {
      URL: 'there',
      DB: '3',
      FAST: 'true',
      TTL: 'false',
      MODE: 'weak',
      NAMES: 'a, b,c',
      HOST: 'h',
      PORT: '1',
    };
    // The build serializes the config to JSON.
    expect(resolve(JSON.parse(JSON.stringify(config)), variables)).toEqual({
      url: 'there',
      db: 3,
      fast: true,
      ttl: false,
      mode: 'weak',
      names: ['a', 'b', 'c'],
      nodes: [{ host: 'h', port: 1 }],
    });
  });

  it.each([[{}], [{ URL: '' }]])(
    'that refer to a missing variable throw an error that names it and explains .env files (%j)',
    (variables) => {
      expect(() => resolve({ url: fromEnv('URL') }, variables)).toThrow(
        /\[session-example\] URL is not set.*node --env-file=\.env dist\/server\/entry\.mjs/,
      );
    },
  );

  it('that are wrong throw an error without the value of the variable', () => {
    let message = '';
    try {
      resolve({ db: fromEnv('DB') }, { DB: 'hunter2' });
    } catch (error) {
      message = String(error);
    }
    expect(message).toContain('`db`: expected a whole number');
    expect(message).not.toContain('hunter2');
  });
});

describe('fromEnv', () => {
  it.each(['', '1NAME', 'WITH SPACE', 'A-B', undefined])('rejects the name %j', (name) => {
    expect(() => fromEnv(name as string)).toThrow('takes the name of an environment variable');
  });

  it('throws when it is used inside a string', () => {
    const url = fromEnv('HOST');
    expect(() => `redis://${url as unknown as string}`).toThrow('must be the whole option');
  });
});
