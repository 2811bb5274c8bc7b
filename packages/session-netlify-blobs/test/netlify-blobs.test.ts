import { inspect } from 'node:util';
import { createSessions, sweep, type Sessions } from '@coatcheck/session-core';
import { recordKey, valueStore, isSessionDriverError } from '@coatcheck/session-core/driver';
import { netlifyBlobsDriver, type NetlifyBlobsDriverConfig } from '@coatcheck/session-netlify-blobs';
import netlifyBlobs from '@coatcheck/session-netlify-blobs/runtime';
import * as client from '@netlify/blobs';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { startProxy, type FaultProxy } from '@coatcheck/test-support/fault-proxy';
import { inBlobStore } from '../src/client.ts';
import { blobBackend, blobName } from '../src/store.ts';
import { contextFor, SITE, startBlobs, startGateway, TOKEN, type Blobs, type Gateway } from './support/blobs.ts';

/** A deadline beyond the time limit of a test: a test that waits for it fails. */
const NEVER_MS = 600_000;

let blobs: Blobs;
let gateway: Gateway;
let proxy: FaultProxy;

beforeAll(async () => {
  blobs = await startBlobs();
  gateway = await startGateway(blobs);
  proxy = await startProxy({ target: gateway.port });
});

beforeEach(() => vi.stubEnv('NETLIFY_BLOBS_CONTEXT', contextFor(proxy.port)));

afterEach(async () => {
  vi.unstubAllEnvs();
  vi.useRealTimers();
  vi.restoreAllMocks();
  gateway.answerWith = undefined;
  gateway.requests.length = 0;
  await proxy.pass();
});

afterAll(async () => {
  for (const part of [proxy, gateway, blobs]) await part[Symbol.asyncDispose]();
});

let stores = 0;

/** A driver with its own blob store, so that tests do not share sessions or failures. */
function newDriver(config: NetlifyBlobsDriverConfig = {}): ReturnType<typeof netlifyBlobs> {
  stores += 1;
  return netlifyBlobs({ name: `store-${stores}`, ...config });
}

/** A visit that stores `data`. Resolves to the cookie. */
async function visit(sessions: Sessions, data: Record<string, unknown>, cookie = ''): Promise<string> {
  const session = sessions.open(cookie);
  for (const [key, value] of Object.entries(data)) session.set(key, value);
  const set = await session.commit();
  return set?.split(';')[0] ?? cookie;
}

const read = async (sessions: Sessions, cookie: string): Promise<unknown> =>
  Object.fromEntries(await sessions.open(cookie).entries());

const failureOf = async (work: Promise<unknown>): Promise<{ code: string; message: string }> => {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!isSessionDriverError(error)) throw new Error(`expected a failure, got ${inspect(error)}`);
  expect(inspect(error, { depth: 9, showHidden: true })).not.toContain(TOKEN);
  return { code: error.code, message: error.message };
};

describe('round trips', () => {
  it('a read takes one request, a write two, also with concurrent writers', async () => {
    const sessions = createSessions({ driver: newDriver() });
    const requestsOf = async (work: Promise<unknown>) => {
      gateway.requests.length = 0;
      await work;
      return gateway.requests.map((request) => request.split(' ')[0]);
    };
    const cookie = await visit(sessions, { cart: 1 });
    expect(await requestsOf(read(sessions, cookie))).toEqual(['GET']);
    expect(await requestsOf(visit(sessions, { cart: 2 }, cookie))).toEqual(['GET', 'PUT']);
    expect(await requestsOf(read(sessions, `${cookie.slice(0, -12)}000000000000`))).toEqual(['GET']);
    expect(await requestsOf(Promise.all(['a', 'b', 'c'].map((key) => visit(sessions, { [key]: 1 }, cookie))))).toEqual([
      'GET',
      'PUT',
    ]);
  });

  it('an access token doubles the requests, because Netlify returns signed URLs', async () => {
    vi.stubEnv('NETLIFY_BLOBS_CONTEXT', '');
    const asked: string[] = [];
    const realFetch = globalThis.fetch;
    vi.spyOn(globalThis, 'fetch').mockImplementation((input, init) => {
      const url = input as string;
      asked.push(`${init!.method!.toUpperCase()} ${new URL(url).origin}`);
      return realFetch(url.replace('https://api.netlify.com', `http://127.0.0.1:${blobs.port}`), init);
    });
    const sessions = createSessions({ driver: newDriver({ siteID: SITE, token: TOKEN }) });
    const cookie = await visit(sessions, { cart: 1 });
    asked.length = 0;
    expect(await read(sessions, cookie)).toEqual({ cart: 1 });
    expect(asked.slice(0, 2)).toEqual(['GET https://api.netlify.com', `GET http://localhost:${blobs.port}`]);
  });
});

describe('races between processes', () => {
  const openStore = (name: string) => valueStore(blobBackend(inBlobStore(client, { name }), 5000));
  const call = () => ({ signal: AbortSignal.timeout(30_000) });
  const setting = (field: string) => ({
    set: new Map([[field, ':1']]),
    unset: [],
    lifetimeMs: 60_000,
    defaultTtlMs: 60_000,
    now: Date.now(),
  });

  it('64 writers in four processes lose no updates', async () => {
    for (let round = 0; round < 5; round++) {
      const processes = [1, 2, 3, 4].map(() => openStore('races'));
      const fields = Array.from({ length: 64 }, (_, index) => `field-${index}`);
      const results = await Promise.all(
        fields.map((field, index) => processes[index % 4]!.patch(`cart-${round}`, setting(field), call())),
      );
      expect(new Set(results)).toEqual(new Set(['applied']));
      expect((await processes[0]!.read(`cart-${round}`, call()))!.size).toBe(64);
    }
  });

  it('a sign-out during writes of other processes is final', async () => {
    for (let round = 0; round < 10; round++) {
      const processes = [1, 2, 3, 4].map(() => openStore('races'));
      const key = `user-${round}`;
      await processes[0]!.patch(key, setting('user'), call());
      const writes = Array.from({ length: 32 }, (_, index) =>
        processes[index % 4]!.patch(key, setting(`f${index}`), call()),
      );
      await processes[round % 4]!.destroy(key, 60_000, call());
      await Promise.all(writes);
      for (const store of processes) {
        expect(await store.read(key, call())).toBeNull();
        expect(await store.patch(key, setting('late'), call())).toBe('destroyed');
      }
    }
  });
});

describe('a failing storage', () => {
  const timeout = 800;

  it.each([
    ['refuses connections', () => proxy.refuse(), 'unavailable', /ECONNREFUSED.*is the local server running/],
    ['resets them', () => proxy.reset(), 'unavailable', /does not answer correctly \(.+\)/],
    ['accepts and says nothing', () => proxy.silence(), 'timeout', /did not answer within 1600 ms/],
    ['freezes', () => proxy.hold(), 'timeout', /did not answer within 1600 ms/],
    ['breaks off in the middle of answers', () => proxy.cut(180), 'unavailable', /does not answer correctly/],
  ] as const)(
    'that %s is reported at the deadline at the latest, and used again as soon as it is back',
    async (_what, breakIt, code, message) => {
      const sessions = createSessions({ driver: newDriver({ timeout: 2 * timeout }) });
      const name = `store-${stores}`;
      const impatient = createSessions({ driver: newDriver({ timeout, name }) });
      const patient = createSessions({ driver: newDriver({ timeout: NEVER_MS, name }) });
      const cookie = await visit(patient, { cart: 'x'.repeat(2000) });

      await breakIt();
      for (const work of [() => read(impatient, cookie), () => visit(impatient, { late: 1 }, cookie)]) {
        const failure = await failureOf(work());
        expect(['timeout', 'unavailable']).toContain(failure.code);
      }
      // The circuit breaker may have noticed the outage first.
      const failure = await failureOf(read(sessions, cookie));
      expect(failure).toMatchObject({ code: expect.stringMatching(code), message: expect.stringMatching(message) });
      await proxy.pass();
      await expect.poll(() => read(impatient, cookie).catch(() => 'down')).toEqual({ cart: 'x'.repeat(2000) });
    },
  );

  it('connections that were closed while the process was frozen cause no error', async () => {
    const sessions = createSessions({ driver: newDriver() });
    const cookie = await visit(sessions, { cart: 1 });
    for (let round = 0; round < 5; round++) {
      await proxy.reset();
      await proxy.pass();
      await visit(sessions, { round }, cookie);
      expect(await read(sessions, cookie)).toEqual({ cart: 1, round });
    }
  });

  it('a few 500, 502, 503 or 429 responses are retried', async () => {
    const sessions = createSessions({ driver: newDriver() });
    const cookie = await visit(sessions, { cart: 1 });
    const failures = [500, 503, 429, 502, 429, 504];
    let asked = 0;
    gateway.answerWith = () => (asked++ % 4 === 3 ? undefined : failures.pop());
    await visit(sessions, { cart: 2 }, cookie);
    expect(failures).toEqual([]);
    expect(await read(sessions, cookie)).toEqual({ cart: 2 });
  });

  it.each([
    [500, 'unavailable', /\(500\), even after retries/],
    [429, 'refused', /limits how often/],
    [401, 'refused', /is the token valid for this site/],
    [403, 'refused', /is the token valid for this site/],
    [400, 'refused', /refuses the request \(400\)/],
  ])('the operation fails if all responses are %i', async (status, code, message) => {
    const sessions = createSessions({ driver: newDriver({ timeout: NEVER_MS }) });
    gateway.answerWith = () => status;
    const failure = await failureOf(visit(sessions, { cart: 1 }));
    expect(failure).toMatchObject({ code, message: expect.stringMatching(message) });
  });

  it.each([400, 401, 403, 404, 429, 500, 503])('a write fails if its response is %i', async (status) => {
    const sessions = createSessions({ driver: newDriver() });
    const cookie = await visit(sessions, { cart: 1 });
    gateway.answerWith = (method) => (method === 'PUT' ? status : undefined);
    const impatient = createSessions({ driver: newDriver({ name: `store-${stores}`, timeout: 1500 }) });
    const failure = await failureOf(visit(impatient, { cart: 2 }, cookie));
    if (status >= 500)
      expect(failure).toMatchObject({ code: 'interrupted', message: expect.stringMatching(/may have been stored/) });
    gateway.answerWith = undefined;
    expect(await read(sessions, cookie)).toEqual({ cart: 1 });
  });

  it.each([409, 412])('a write that conflicts with another (%i) is repeated on the new value', async (status) => {
    const sessions = createSessions({ driver: newDriver() });
    const cookie = await visit(sessions, { cart: 1 });
    let met = false;
    gateway.answerWith = (method) => (method === 'PUT' && !met ? ((met = true), status) : undefined);
    await visit(sessions, { user: 'ada' }, cookie);
    expect(met).toBe(true);
    expect(await read(sessions, cookie)).toEqual({ cart: 1, user: 'ada' });
  });

  it('a write whose response is lost is applied once', async () => {
    const sessions = createSessions({ driver: newDriver() });
    const cookie = await visit(sessions, { count: 1 });
    let lost = 0;
    gateway.answerWith = (method) => (method === 'PUT' && lost++ === 0 ? { stored: 502 } : undefined);
    const session = sessions.open(cookie);
    await session.update('count', (count) => Number(count) + 1);
    expect(gateway.requests.filter((request) => request.startsWith('PUT'))).toHaveLength(3);
    expect(await read(sessions, cookie)).toEqual({ count: 2 });
  });

  it('an error does not quote a wrong access token', async () => {
    const wrong = 'secret-but-wrong';
    vi.stubEnv('NETLIFY_BLOBS_CONTEXT', contextFor(blobs.port, { token: wrong }));
    const sessions = createSessions({ driver: newDriver() });
    const error: unknown = await visit(sessions, { cart: 1 }).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'refused', message: expect.stringContaining('(403)') });
    expect(inspect(error, { depth: 9, showHidden: true })).not.toContain(wrong);
  });
});

describe('without Netlify Blobs', () => {
  it('the error says what to do', async () => {
    vi.stubEnv('NETLIFY_BLOBS_CONTEXT', '');
    const failure = await failureOf(visit(createSessions({ driver: newDriver() }), { cart: 1 }));
    expect(failure).toMatchObject({
      code: 'configuration',
      message: expect.stringMatching(/NETLIFY_BLOBS_CONTEXT is not set.*`netlify dev`.*set `siteID` and `token`/),
    });
  });

  it('the error says what to do if there are no consistent reads', async () => {
    vi.stubEnv('NETLIFY_BLOBS_CONTEXT', contextFor(proxy.port, { uncachedEdgeURL: undefined }));
    const failure = await failureOf(visit(createSessions({ driver: newDriver() }), { cart: 1 }));
    expect(failure).toMatchObject({ code: 'configuration', message: expect.stringContaining('no `uncachedEdgeURL`') });
  });

  it('uses a context that is set later, because Netlify renews the token', async () => {
    const sessions = createSessions({ driver: newDriver() });
    vi.stubEnv('NETLIFY_BLOBS_CONTEXT', '');
    await failureOf(visit(sessions, { cart: 1 }));
    vi.stubEnv('NETLIFY_BLOBS_CONTEXT', contextFor(proxy.port));
    expect(await read(sessions, await visit(sessions, { cart: 1 }))).toEqual({ cart: 1 });
  });
});

describe('names', () => {
  it('the default is a store of the site; `deployScoped` uses a store of the deploy', async () => {
    const site = createSessions({ driver: newDriver({ name: 'visitors' }) });
    await visit(site, { cart: 1 });
    expect(gateway.requests.at(-1)).toMatch(new RegExp(`^PUT /${SITE}/site:visitors/`));
    const deploy = createSessions({ driver: newDriver({ name: 'visitors', deployScoped: true }) });
    const cookie = await visit(deploy, { cart: 2 });
    expect(gateway.requests.at(-1)).toMatch(
      /^PUT \/region:us-east-2\/[\w-]+\/deploy:d3b07384d113edec49eaa6:visitors\//,
    );
    expect(await read(deploy, cookie)).toEqual({ cart: 2 });
    expect(await read(site, cookie)).toEqual({});
  });

  it('prefixes with special characters of URLs do not collide', async () => {
    const prefixes = ['a?b:', 'a', 'a#b:', 'a/../b:', 'a%2Fb:', 'a~3f~b:', 'ä 漢🧥:', '/:', '..'];
    const name = 'odd-prefixes';
    const all = prefixes.map((prefix) => createSessions({ driver: newDriver({ name, prefix }) }));
    const cookie = await visit(all[0]!, { site: 0 });
    for (const sessions of all.slice(1)) expect(await read(sessions, cookie)).toEqual({});
    const keys = await Promise.all(prefixes.map((prefix) => recordKey('0123456789abcdef', prefix)));
    expect(new Set(keys.map(blobName)).size).toBe(prefixes.length);
    for (const sessions of all) expect(await read(sessions, await visit(sessions, { own: 1 }))).toEqual({ own: 1 });
  });
});

describe('sweeping', () => {
  const HOUR = 3_600_000;
  const later = (ms: number) => vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + ms });
  const namesIn = async (name: string) => (await client.getStore(name).list()).blobs.map(({ key }) => key);

  it('removes expired sessions only', async () => {
    const name = 'swept';
    const short = createSessions({ driver: newDriver({ name, ttl: 60 }) });
    const other = createSessions({ driver: newDriver({ name, ttl: 60, prefix: 'other:' }) });
    const long = createSessions({ driver: newDriver({ name, ttl: 86_400 }) });
    const endless = createSessions({ driver: newDriver({ name, ttl: false }) });
    for (let index = 0; index < 20; index++) await visit(short, { index });
    for (let index = 0; index < 5; index++) await visit(other, { index });
    const kept = [await visit(long, { cart: 1 }), await visit(endless, { cart: 2 })] as const;
    const signedOut = long.open(await visit(long, { user: 'ada' }));
    signedOut.destroy();
    await signedOut.commit();
    await client.getStore(name).set('something-else', 'of the site');

    const driver = netlifyBlobs({ name });
    expect(await sweep(driver)).toBe(0);
    later(HOUR);
    expect(await sweep(driver)).toBe(26);
    expect(await sweep(driver)).toBe(0);
    expect(await namesIn(name)).toHaveLength(3);
    expect([await read(long, kept[0]), await read(endless, kept[1])]).toEqual([{ cart: 1 }, { cart: 2 }]);
    expect(await client.getStore(name).get('something-else')).toBe('of the site');
  });

  it('stops at the limit, and continues with the next call', async () => {
    const name = 'swept-in-parts';
    const sessions = createSessions({ driver: newDriver({ name, ttl: 60 }) });
    for (let index = 0; index < 30; index++) await visit(sessions, { index });
    later(HOUR);
    const driver = netlifyBlobs({ name });
    expect(await sweep(driver, 20)).toBe(20);
    expect(await namesIn(name)).toHaveLength(10);
    expect(await sweep(driver, 20)).toBe(10);
  });

  it('keeps an expired session to which a slow request may still write', async () => {
    const name = 'swept-late';
    const driver = newDriver({ name, ttl: 60 });
    const sessions = createSessions({ driver });
    const cookie = await visit(sessions, { cart: 1 });
    later(61_000);
    expect(await read(sessions, cookie)).toEqual({});
    expect(await sweep(driver)).toBe(0);
    later(121_000);
    expect(await sweep(driver)).toBe(1);
  });

  it('rejects if the storage fails, and sends no further requests', async () => {
    const driver = newDriver();
    let asked = 0;
    gateway.answerWith = () => (asked++ === 5 ? 403 : undefined);
    expect(await failureOf(sweep(driver))).toMatchObject({ code: 'refused' });
    // Requests that were sent before the failure still arrive. A whole sweep would send at least 64.
    await expect(sweep(newDriver())).resolves.toBe(0);
    expect(gateway.requests.length).toBeLessThan(64 + 40);
  });

  it('ends before its deadline, and returns how many it has removed', async () => {
    const name = 'swept-slowly';
    const sessions = createSessions({ driver: newDriver({ name, ttl: 60 }) });
    for (let index = 0; index < 12; index++) await visit(sessions, { index });
    later(HOUR);
    // Each request takes one fortieth of the deadline.
    gateway.answerWith = () => void later(NEVER_MS / 40);
    const driver = netlifyBlobs({ name, timeout: NEVER_MS });
    let removed = await sweep(driver);
    expect(removed).toBeLessThan(12);
    await expect.poll(async () => (removed += await sweep(driver))).toBe(12);
  });
});

describe('netlifyBlobsDriver()', () => {
  it('validates its options', () => {
    expect(netlifyBlobsDriver({ name: 'sessions', deployScoped: true })).toMatchObject({
      config: { deployScoped: true },
    });
    expect(() => netlifyBlobsDriver({ name: 'a/b' })).toThrow(
      '`name`: expected a name of at most 64 bytes, without a slash',
    );
    expect(() => netlifyBlobsDriver({ name: 'ä'.repeat(33) })).toThrow('`name`: expected');
    expect(() => netlifyBlobsDriver({ siteID: SITE })).toThrow('Pass `siteID` and `token` together, or neither.');
    expect(() => netlifyBlobsDriver({ siteID: SITE, token: { fromEnv: 'T' }, deployScoped: true })).toThrow(
      '`deployScoped` works only on Netlify',
    );
    // @ts-expect-error a wrong option is also a compile error
    expect(() => netlifyBlobsDriver({ consistency: 'eventual' })).toThrow('`consistency` is not an option');
  });

  it('warns about a token in the config', () => {
    const warn = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
    netlifyBlobsDriver({ siteID: SITE, token: { fromEnv: 'NETLIFY_AUTH_TOKEN' } });
    expect(warn).not.toHaveBeenCalled();
    netlifyBlobsDriver({ siteID: SITE, token: TOKEN });
    expect(warn).toHaveBeenCalledTimes(1);
  });
});
