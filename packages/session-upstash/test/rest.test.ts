import { inspect } from 'node:util';
import { createSessions } from '@coatcheck/session-core';
import { type Fields, isSessionDriverError } from '@coatcheck/session-core/driver';
import upstash from '@coatcheck/session-upstash/runtime';
import { Redis } from 'ioredis';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { testOperations } from '@coatcheck/test-support/redis-operations';
import { redisUrl } from '@coatcheck/test-support/redis-server';
import { call, change, newKey } from '@coatcheck/test-support/stores';
import { startUpstashBridge, type Fault } from '@coatcheck/test-support/upstash-bridge';
import type { UpstashDriverConfig } from '../src/index.ts';
import { openStore } from './support/store.ts';

const DEADLINE_MS = 600;
/** A deadline beyond the time limit of a test: a test that waits for it fails. */
const NEVER_MS = 500_000;

const url = await redisUrl();
const bridge = await startUpstashBridge(url);
const inspector = new Redis(url);
afterEach(() => bridge.inject());
afterAll(async () => {
  inspector.disconnect();
  await bridge[Symbol.asyncDispose]();
});

async function requestsDuring(work: () => Promise<unknown>) {
  const before = bridge.requests.length;
  await work();
  return bridge.requests.slice(before);
}

/** The commands of each request during `work`. */
async function commandsDuring(work: () => Promise<unknown>): Promise<string[]> {
  return (await requestsDuring(work)).map(({ commands }) => commands.join(' '));
}

/** The error of a failed operation. */
async function failureOf(work: Promise<unknown>) {
  try {
    const value = await work;
    throw new Error(`expected a rejection, got ${inspect(value)}`);
  } catch (error) {
    if (!isSessionDriverError(error)) throw error;
    return { error, code: error.code, message: error.message };
  }
}

let drivers = 0;

function openSite(config: UpstashDriverConfig = {}) {
  // Drivers with the same configuration share a circuit breaker. This one must be independent of other tests.
  drivers += 1;
  const timeout = (config.timeout as number | undefined) ?? 5000;
  const sessions = createSessions({
    driver: upstash({ url: bridge.url, token: bridge.token, ...config, timeout: timeout + drivers }),
  });
  const write = async (value: string, cookie = '') => {
    const session = sessions.open(cookie);
    session.set('value', value);
    return (await session.commit())?.split(';')[0] ?? cookie;
  };
  const read = (cookie: string) => sessions.open(cookie).get('value');
  return { sessions, write, read };
}

describe('one operation is one request', () => {
  const store = openStore(bridge);
  testOperations(store, inspector, commandsDuring, { byHash: 'EVALSHA', bySource: 'EVAL' });

  it('concurrent operations are not combined into one request, where one would wait for the other', async () => {
    const keys = [newKey(), newKey(), newKey()];
    const commands = await commandsDuring(() => Promise.all(keys.map((other) => store.read(other, call()))));
    expect(commands).toEqual(['HGETALL', 'HGETALL', 'HGETALL']);
  });
});

describe('requests', () => {
  it('contain no telemetry about the site', async () => {
    const store = openStore(bridge);
    const [request] = await requestsDuring(() => store.read(newKey(), call()));
    expect(Object.keys(request!.headers).filter((name) => name.includes('telemetry'))).toEqual([]);
  });

  it('let a client read its own writes from a database with replicas', async () => {
    const store = openStore(bridge);
    const key = newKey();
    const [first, second, third] = await requestsDuring(async () => {
      for (let round = 0; round < 3; round++) await store.read(key, call());
    });
    expect(first!.headers['upstash-sync-token']).toBe('');
    const tokens = [second!, third!].map(({ headers }) => headers['upstash-sync-token'] as string);
    expect(tokens.map((token) => Buffer.from(token, 'base64').toString())).toEqual([
      expect.stringMatching(/^synced:\d+$/),
      expect.stringMatching(/^synced:\d+$/),
    ]);
    expect(new Set(tokens).size).toBe(2);
  });

  it('return values unchanged, whatever they look like', async () => {
    const store = openStore(bridge);
    const key = newKey();
    const looks = [
      '1',
      '01',
      '1e400',
      '9007199254740993',
      'null',
      'true',
      '"a"',
      '{"a":1}',
      '[1]',
      'OK',
      'T0s=',
      ' ',
      '',
      '<&>\u2028',
    ];
    const set: Fields = new Map(looks.map((value, index) => [`${index}${value}`, value]));
    await store.patch(key, change({ set }), call());
    expect(await store.read(key, call())).toEqual(set);
  });
});

const JSON_500: Fault = { kind: 'status', status: 500, body: '{"error":"Internal Server Error"}' };
const HTML_502: Fault = {
  kind: 'status',
  status: 502,
  body: '<html><h1>502 Bad Gateway</h1></html>',
  contentType: 'text/html',
};
const JSON_429: Fault = { kind: 'status', status: 429, body: '{"error":"Too Many Requests"}' };
const HTML_429: Fault = {
  kind: 'status',
  status: 429,
  body: '<html><h1>429 Too Many Requests</h1></html>',
  contentType: 'text/html',
};
const answer = (body: string): Fault => ({ kind: 'answer', body });

/** After these faults, it is unknown whether a write was applied. */
const BAFFLING: Record<string, Fault> = {
  'a 500': JSON_500,
  'a 502 of a gateway': HTML_502,
  'an internal error': answer('{"error":"ERR internal error"}'),
  'a truncated answer': { kind: 'truncated' },
  'an answer that is cut off': { kind: 'cut' },
  'a connection that is reset': { kind: 'reset' },
  'an empty answer': answer(''),
  'an answer without a result': answer('{}'),
  'an answer of null': answer('null'),
  'a number': answer('{"result":5}'),
  'an object': answer('{"result":{}}'),
  'half of a list': answer('{"result":["","1:9999999999999::1","value"]}'),
  'a list of something else': answer('{"result":["",1]}'),
  'a page': answer('<html>Welcome</html>'),
};

describe('Upstash fails for a moment', () => {
  describe.each(Object.entries({ ...BAFFLING, 'a 429': JSON_429, 'a 429 of a gateway': HTML_429 }))(
    '%s',
    (_, fault) => {
      it('a read only takes longer', async () => {
        const { read, write } = openSite();
        const cookie = await write('hat');
        bridge.inject(fault, 2);
        expect(await read(cookie)).toBe('hat');
      });
    },
  );

  it.each([
    ['a 429', JSON_429],
    ['a 429 of a gateway', HTML_429],
    [
      'too many connections',
      { kind: 'status', status: 400, body: '{"error":"ERR max concurrent connections exceeded"}' },
    ],
    [
      'a Redis that is loading',
      { kind: 'status', status: 400, body: '{"error":"LOADING Redis is loading the dataset"}' },
    ],
  ] as [string, Fault][])('a write that was not applied is sent again: %s', async (_, fault) => {
    const { read, write } = openSite();
    bridge.inject(fault, 2);
    let cookie = '';
    const sent = await requestsDuring(async () => (cookie = await write('hat')));
    expect(sent.map(({ carriedOut }) => carriedOut)).toEqual([false, false, true]);
    expect(await read(cookie)).toBe('hat');
  });

  it.each(Object.entries(BAFFLING).filter(([, { kind }]) => kind !== 'status'))(
    'a write is not sent again: %s',
    async (_, fault) => {
      const { read, write } = openSite();
      const cookie = await write('hat');
      bridge.inject(fault);
      let failure;
      const sent = await requestsDuring(async () => (failure = await failureOf(write('coat', cookie))));
      expect(failure).toMatchObject({ code: 'interrupted', message: expect.stringContaining('not sent again') });
      expect(sent).toMatchObject([{ commands: ['EVALSHA'], carriedOut: true }]);
      bridge.inject();
      // The write was applied, and blocks no other operations.
      expect(await read(cookie)).toBe('coat');
    },
  );

  it.each([
    ['a 500', JSON_500],
    ['a 502 of a gateway', HTML_502],
  ])('a write is not sent again: %s', async (_, fault) => {
    const { read, write } = openSite();
    const cookie = await write('hat');
    bridge.inject(fault);
    const sent = await requestsDuring(async () => {
      expect(await failureOf(write('coat', cookie))).toMatchObject({ code: 'interrupted' });
    });
    expect(sent).toHaveLength(1);
    bridge.inject();
    expect(await read(cookie)).toBe('hat');
  });

  it('a reply that comes before the deadline is used', async () => {
    const { read, write } = openSite();
    const cookie = await write('hat');
    bridge.inject({ kind: 'late', ms: 500 });
    expect(await read(cookie)).toBe('hat');
  });

  it('64 writers that get 429 together all succeed', async () => {
    const { sessions, write } = openSite({ timeout: NEVER_MS });
    const cookie = await write('hat');
    bridge.inject(JSON_429, 150);
    await Promise.all(
      Array.from({ length: 64 }, async (_, index) => {
        const session = sessions.open(cookie);
        session.set(`key${index}`, index);
        await session.commit();
      }),
    );
    expect([...(await sessions.open(cookie).keys())]).toHaveLength(65);
  });
});

describe('Upstash is down', () => {
  const away: [string, Fault, RegExp][] = [
    ...Object.entries(BAFFLING).map(([name, fault]): [string, Fault, RegExp] => [
      name,
      fault,
      /not from Upstash|not be reached/,
    ]),
    ['a 429', JSON_429, /too many requests/],
    ['a quota that is used up', answer('{"error":"ERR max requests limit exceeded."}'), /larger plan/],
  ];

  it.each(away)('%s: a read fails, and is never a missing session', async (_, fault, says) => {
    const { read } = openSite({ timeout: DEADLINE_MS });
    const cookie = await openSite().write('hat');
    bridge.inject(fault);
    const { code, message } = await failureOf(read(cookie));
    expect(code).toBe('unavailable');
    expect(message).toMatch(says);
    // Later operations fail at once.
    expect(await failureOf(read(cookie))).toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining('does not answer; nothing was sent'),
    });
    bridge.inject();
    await expect.poll(() => read(cookie).catch(() => 'failed'), { interval: 10 }).toBe('hat');
  });

  it.each([
    ['never answers', { kind: 'silent' }],
    ['answers too late', { kind: 'late', ms: DEADLINE_MS * 10 }],
  ] as [string, Fault][])('%s: reads and writes fail at the deadline', async (_, fault) => {
    for (const operation of ['read', 'write'] as const) {
      const site = openSite({ timeout: DEADLINE_MS });
      const cookie = await openSite().write('hat');
      bridge.inject(fault);
      const work = operation === 'read' ? site.read(cookie) : site.write('coat', cookie);
      const { code, message } = await failureOf(work);
      expect(code).toBe('timeout');
      expect(message).toMatch(/did not answer within \d+ ms/);
      bridge.inject();
      await expect.poll(() => site.read(cookie).catch(() => 'failed'), { interval: 10 }).toMatch(/hat|coat/);
    }
  });

  it('unreachable: reads and writes fail with the reason', async () => {
    const gone = await startUpstashBridge(url);
    await gone[Symbol.asyncDispose]();
    const site = openSite({ url: gone.url, timeout: DEADLINE_MS });
    const cookie = `astro-session=${crypto.randomUUID()}`;
    const failure = await failureOf(site.read(cookie));
    expect(failure).toMatchObject({ code: 'unavailable', message: expect.stringContaining('ECONNREFUSED') });
    // A write was not sent either, so it may retry until the deadline.
    const other = openSite({ url: gone.url, timeout: DEADLINE_MS });
    expect(await failureOf(other.write('hat'))).toMatchObject({ code: 'unavailable' });
  });

  it('nothing is sent after the caller got an error', async () => {
    const store = openStore(bridge);
    bridge.inject(JSON_500);
    const controller = new AbortController();
    const reading = store.read(newKey(), { signal: controller.signal });
    // This is before the next retry.
    await expect.poll(() => bridge.requests.at(-1)?.commands, { interval: 1 }).toEqual([]);
    controller.abort();
    const sent = await requestsDuring(() => expect(reading).rejects.toThrow(/session-upstash|aborted/));
    expect(sent).toEqual([]);
    await expect(store.read(newKey(), { signal: controller.signal })).rejects.toThrow('nothing was sent');
    expect(await requestsDuring(async () => undefined)).toEqual([]);
  });

  it('a reply after the deadline is ignored', async () => {
    const store = openStore(bridge);
    const key = newKey();
    bridge.inject({ kind: 'late', ms: 60_000 }, 1);
    await expect(store.read(key, call(100))).rejects.toThrow('aborted due to timeout');
  });
});

describe('errors of the configuration are reported at once', () => {
  const cookie = `astro-session=${crypto.randomUUID()}`;

  it('a wrong token', async () => {
    const { read } = openSite({ token: 'wrong', timeout: NEVER_MS });
    expect(await failureOf(read(cookie))).toMatchObject({
      code: 'configuration',
      message: expect.stringContaining('UPSTASH_REDIS_REST_TOKEN'),
    });
  });

  it('a read-only token', async () => {
    const { read, write } = openSite({ token: bridge.readOnlyToken });
    expect(await read(cookie)).toBeUndefined();
    expect(await failureOf(write('hat'))).toMatchObject({
      code: 'configuration',
      message: expect.stringContaining('standard token'),
    });
  });

  it.each([
    [
      {},
      'UPSTASH_REDIS_REST_URL (or KV_REST_API_URL) is not set. Set it in the environment of the server, or pass `url`.',
    ],
    [{ UPSTASH_REDIS_REST_URL: bridge.url }, 'UPSTASH_REDIS_REST_TOKEN (or KV_REST_API_TOKEN) is not set.'],
    [{ KV_REST_API_URL: bridge.url }, 'UPSTASH_REDIS_REST_TOKEN (or KV_REST_API_TOKEN) is not set.'],
    [
      { UPSTASH_REDIS_REST_URL: 'redis://:hush@host', UPSTASH_REDIS_REST_TOKEN: 'hush' },
      'UPSTASH_REDIS_REST_URL: expected the REST URL',
    ],
    [
      { UPSTASH_REDIS_REST_URL: bridge.url, UPSTASH_REDIS_REST_TOKEN: 'hush\n' },
      'UPSTASH_REDIS_REST_TOKEN: expected a token',
    ],
  ] as [Record<string, string>, string][])('variables %#', async (variables, says) => {
    const driver = upstash({}, { env: (name) => variables[name] });
    const { code, message } = await failureOf(driver.getItem(crypto.randomUUID()));
    expect(code).toBe('configuration');
    expect(message).toContain(says);
    expect(message).not.toContain('hush');
  });

  it.each([
    { UPSTASH_REDIS_REST_URL: bridge.url, UPSTASH_REDIS_REST_TOKEN: bridge.token },
    { KV_REST_API_URL: bridge.url, KV_REST_API_TOKEN: bridge.token },
    // A pair counts only if it is complete.
    { UPSTASH_REDIS_REST_URL: bridge.url, KV_REST_API_URL: bridge.url, KV_REST_API_TOKEN: bridge.token },
  ] as Record<string, string>[])('the variables of Upstash and Vercel: %o', async (variables) => {
    const driver = upstash({}, { env: (name) => variables[name] });
    expect(await driver.getItem(crypto.randomUUID())).toBeNull();
  });

  it.each(['redis://:hush@localhost', 'hush', 'https://user:hush@host', 'ftp://hush', ''])(
    'the URL %s',
    async (wrong) => {
      await expect(upstash({ url: wrong, token: 't' }).getItem(crypto.randomUUID())).rejects.toThrow(
        /^\[session-upstash\] Wrong options: `url`: expected the REST URL of the database(?!.*hush)/,
      );
    },
  );
});

describe('sessions that cannot be stored', () => {
  it('a session that is too large for one request is refused, and the old one is kept', async () => {
    const { sessions, write, read } = openSite();
    const cookie = await write('hat');
    const session = sessions.open(cookie);
    session.set('large', 'x'.repeat(1_100_000));
    expect(await failureOf(session.commit())).toMatchObject({
      code: 'invalid-data',
      message: expect.stringContaining('max request size exceeded; 1 MB'),
    });
    expect(await read(cookie)).toBe('hat');
  });

  it('a key with other data is not changed', async () => {
    const store = openStore(bridge);
    const key = newKey();
    await inspector.set(key, 'something else');
    await expect(store.read(key, call())).rejects.toThrow('WRONGTYPE');
    await expect(store.patch(key, change({ set: new Map([['a', ':1']]) }), call())).rejects.toThrow('WRONGTYPE');
    expect(await inspector.get(key)).toBe('something else');
  });
});

it('no error contains a session id, a key, a value or a token', async () => {
  const faults: Fault[] = [
    ...Object.values(BAFFLING),
    JSON_429,
    answer('{"error":"ERR something that nobody knows"}'),
    answer('{"error":"WRONGPASS"}'),
    { kind: 'silent' },
  ];
  for (const fault of faults) {
    const { read, write } = openSite({ timeout: 300 });
    const cookie = await openSite().write('private-value');
    bridge.inject(fault);
    for (const work of [() => write('private-value', cookie), () => read(cookie)]) {
      const { error } = await failureOf(work());
      const shown = `${inspect(error, { depth: 10, showHidden: true })} ${error.stack}`;
      for (const secret of ['private-value', bridge.token, cookie.split('=')[1]!, 'session:']) {
        expect(shown).not.toContain(secret);
      }
    }
    bridge.inject();
  }
});
