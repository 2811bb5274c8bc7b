import { testDriver, testStore } from '@coatcheck/session-core/testing';
import { Miniflare } from 'miniflare';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { redisUrl } from '@coatcheck/test-support/redis-server';
import { startUpstashBridge, type Fault, type UpstashBridge } from '@coatcheck/test-support/upstash-bridge';
import { everything } from '@coatcheck/test-support/scope';
import { bundleWorker } from '@coatcheck/test-support/worker';

// Tests in workerd, Cloudflare's runtime, with a bundle as Wrangler makes it.

let bridge: UpstashBridge;
let bundle: string;

beforeAll(async () => {
  bridge = await startUpstashBridge(await redisUrl());
  bundle = await bundleWorker(new URL('workers/worker.ts', import.meta.url));
}, 60_000);

afterEach(() => bridge.inject());
afterAll(() => bridge?.[Symbol.asyncDispose]());

const workers: [string, string, string[]][] = [['as Astro needs it', '2026-07-30', ['nodejs_compat']]];
if (everything) workers.push(['an old Worker without Node’s modules', '2023-07-01', []]);

describe.each(workers)('%s', (_, compatibilityDate, compatibilityFlags) => {
  let worker: Miniflare;
  let url: URL;

  beforeAll(async () => {
    worker = new Miniflare({
      modules: [{ type: 'ESModule', path: 'worker.mjs', contents: bundle }],
      compatibilityDate,
      compatibilityFlags,
      bindings: { UPSTASH_REDIS_REST_URL: bridge.url, UPSTASH_REDIS_REST_TOKEN: bridge.token },
    });
    url = await worker.ready;
  }, 60_000);
  afterAll(() => worker?.dispose());

  const ask = async (path: string, cookie = '') => {
    const response = await fetch(new URL(path, url), { headers: { cookie }, signal: AbortSignal.timeout(30_000) });
    const text = await response.text();
    return { status: response.status, text, headers: response.headers };
  };
  const signIn = async () => (await ask('/set?key=user&value=ada')).headers.get('set-cookie')!.split(';')[0]!;

  /** Registers a test that workerd runs. */
  const inWorkerd = (name: string): unknown =>
    it.each([name])('%s', { timeout: 30_000 }, async () => {
      expect((await ask(`/conformance?name=${encodeURIComponent(name)}`)).text).toBe('passed');
    });

  describe('the store', () => {
    testStore({ it: inWorkerd, createStore: () => undefined as never, timeLeft: () => undefined as never });
  });

  describe('the driver', () => {
    testDriver({ it: inWorkerd, createDriver: () => undefined as never });
  });

  it('64 concurrent requests lose no updates', { timeout: 30_000 }, async () => {
    const cookie = await signIn();
    const paths = Array.from({ length: 64 }, (_none, index) => (index % 8 ? `/set?key=k${index}&value=1` : '/count'));
    const statuses = await Promise.all(paths.map(async (path) => (await ask(path, cookie)).status));
    expect(statuses).toEqual(paths.map(() => 200));
    const all = JSON.parse((await ask('/all', cookie)).text) as Record<string, unknown>;
    expect(Object.keys(all)).toHaveLength(58);
    expect(all.count).toBe(8);
  });

  it('one request of a visitor needs one request to Upstash', async () => {
    const cookie = await signIn();
    for (const path of ['/all', '/set?key=a&value=1']) {
      const before = bridge.requests.length;
      await ask(path, cookie);
      expect(bridge.requests.length - before).toBe(1);
    }
  });

  it.each([
    ['is down', { kind: 'status', status: 500, body: 'trouble' }],
    ['cuts off its responses', { kind: 'cut' }],
    ['truncates its responses', { kind: 'truncated' }],
    ['resets connections', { kind: 'reset' }],
    ['never answers', { kind: 'silent' }],
    ['answers too late', { kind: 'late', ms: 4000 }],
  ] as [string, Fault][])(
    'Upstash %s: requests get responses, and work again afterwards',
    { timeout: 30_000 },
    async (_name, fault) => {
      const cookie = await signIn();
      bridge.inject(fault);
      for (const path of ['/all', '/set?key=a&value=1']) {
        const { status, text } = await ask(path, cookie);
        expect([status, JSON.parse(text)]).toMatchObject([
          500,
          { message: expect.stringContaining('[session-upstash]') },
        ]);
      }
      bridge.inject();
      await expect.poll(async () => (await ask('/all', cookie)).text).toContain('"user":"ada"');
    },
  );
});
