import { inspect } from 'node:util';
import { fromEnv, redisDriver, type RedisDriverConfig } from '@coatcheck/session-redis';
import { afterEach, describe, expect, it, vi } from 'vitest';
import redisRuntime from '@coatcheck/session-redis/runtime';
import { checkTogether, targetOf } from '../src/target.ts';

afterEach(() => {
  vi.restoreAllMocks();
});

function target(config: RedisDriverConfig, env: Record<string, string> = {}) {
  checkTogether(config);
  return targetOf(config as never, (name) => env[name]);
}

describe('where Redis is', () => {
  it('a URL says', () => {
    expect(target({ url: 'redis://ada:p%40ss%2Fword@redis.example:6380/3' })).toMatchObject({
      server: { host: 'redis.example', port: 6380 },
      username: 'ada',
      password: 'p@ss/word',
      db: 3,
      tls: undefined,
    });
    expect(target({ url: 'rediss://[::1]' })).toMatchObject({ server: { host: '::1', port: 6379 }, db: 0, tls: {} });
    expect(target({ url: 'valkey://h?db=2&family=0' })).toMatchObject({ server: { host: 'h' }, db: 2 });
  });

  it('REDIS_URL says, unless the options do', () => {
    const env = { REDIS_URL: 'redis://:secret@there:1/2' };
    expect(target({}, env)).toMatchObject({ server: { host: 'there', port: 1 }, password: 'secret', db: 2 });
    expect(target({ host: 'here' }, env)).toMatchObject({
      server: { host: 'here', port: 6379 },
      password: undefined,
      db: 0,
    });
    expect(target({ port: 7 }, env)).toMatchObject({ server: { host: 'localhost', port: 7 } });
    expect(target({ password: 'other', db: 5, tls: true }, env)).toMatchObject({
      server: { host: 'there', port: 1 },
      password: 'other',
      db: 5,
      tls: {},
    });
  });

  it('and without any, an operation says what is missing', async () => {
    const driver = redisRuntime({}, { env: () => undefined });
    await expect(driver.getItem('x'.repeat(20))).rejects.toMatchObject({
      code: 'configuration',
      message: expect.stringMatching(
        /^\[session-redis\] REDIS_URL is not set\. Set it in the environment of the server, or pass `url`\. .*--env-file=\.env/,
      ),
    });
  });

  it('is said once', () => {
    expect(() => redisDriver({ url: 'redis://h', host: 'h' })).toThrow('`url` and `host` each say where Redis is.');
    expect(() => redisDriver({ cluster: ['h:1'], url: fromEnv('REDIS_URL') })).toThrow('`url` and `cluster` each say');
    expect(() => redisDriver({ cluster: ['h:1'], db: 1 })).toThrow('A cluster has no `db`.');
  });
});

describe('a wrong URL', () => {
  const wrong = [
    'localhost:6379',
    'http://precious@host',
    'redis://:precious#word@host:6379',
    'redis://',
    'redis://:prec%ious@host',
    'redis://host/precious',
    'redis://host?precious=1',
    'redis://host:123456',
  ];
  for (const url of wrong) {
    it(`${url}: an error that quotes nothing of it`, async () => {
      let error: unknown;
      try {
        redisDriver({ url });
      } catch (thrown) {
        error = thrown;
      }
      expect(error).toMatchObject({
        code: 'configuration',
        message: expect.stringMatching(/Wrong options: `url`: expected /),
      });
      expect(inspect(error, { depth: 20 })).not.toContain('prec');
      expect(String(error).replace(/URL such as \S+ or \S+/, '')).not.toContain(url);

      // Drivers of one configuration share what they have read.
      const driver = redisRuntime({ timeout: 1000 + wrong.indexOf(url) }, { env: () => url });
      const later: unknown = await driver.getItem('x'.repeat(20)).catch((reason: unknown) => reason);
      expect(later).toMatchObject({ code: 'configuration', message: expect.stringMatching(/REDIS_URL: expected /) });
      expect(inspect(later, { depth: 20 })).not.toContain('prec');
    });
  }
});

describe('other wrong options', () => {
  const wrong: [object, RegExp][] = [
    [{ prot: 1 }, /`prot` is not an option\. Options: .*\bport\b/],
    [{ host: '' }, /`host`: expected a non-empty string/],
    [{ port: 70_000 }, /`port`: expected a whole number, from 1 to 65535/],
    [{ tls: 'yes' }, /`tls`: expected true or false/],
    [{ tls: { cA: 'x' } }, /`tls`: `cA` is not an option/],
    [{ cluster: [] }, /`cluster`: expected a list/],
    [{ cluster: [null] }, /needs a `host`/],
    [{ cluster: ['a:b'] }, /`cluster`: expected 'host:port'/],
    [{ sentinel: { name: 'a', nodes: ['h'], tsl: true } }, /`sentinel`: `tsl` is not an option/],
  ];
  for (const [config, message] of wrong) {
    it(`${inspect(config)} are refused`, () => {
      expect(() => redisDriver(config)).toThrow(message);
    });
  }
});

describe('nodes', () => {
  it('are objects, text, or a variable with commas', () => {
    const config = redisDriver({ cluster: [{ host: 'a', port: 7000 }, 'b:7001', '[::1]:7002', 'd'] });
    expect(JSON.parse(JSON.stringify(config.config))).toEqual(config.config);
  });

  it('have a default port', () => {
    expect(target({ cluster: [{ host: 'a' }, { host: 'b', port: 1 }] })).toMatchObject({
      server: {},
      cluster: [
        { host: 'a', port: 6379 },
        { host: 'b', port: 1 },
      ],
    });
  });
});

describe('a secret in the config', () => {
  it('draws a warning, once', () => {
    const warn = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    redisDriver({ url: 'redis://host' });
    redisDriver({ host: 'host', password: fromEnv('REDIS_PASSWORD') });
    expect(warn).not.toHaveBeenCalled();
    redisDriver({ url: 'redis://:secret@host' });
    redisDriver({ sentinel: { name: 'a', nodes: ['h'], password: 'secret' } });
    expect(warn).toHaveBeenCalledTimes(1);
    expect(String(warn.mock.calls[0]![0])).not.toContain('redis://');
  });
});
