import { cp, mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { createVisitor } from './support/http.ts';
import { redisUrl } from './support/redis-server.ts';
import { everything } from './support/scope.ts';
import { isAShop } from './support/shop.ts';
import { buildSite, devSite, startSite, type Built, type Site, type SiteSpec } from './support/site.ts';
import { startUpstashBridge, type UpstashBridge } from './support/upstash-bridge.ts';

// A site on Vercel with sessions in Upstash: it is built by @astrojs/vercel, and its function is served as Vercel's launcher serves it.

const BUILD_TOKEN = 'token-of-the-build-machine';

function siteWith(files: Record<string, string> = {}): SiteSpec {
  const config = `import vercel from '@astrojs/vercel';
import { fromEnv, upstashDriver } from '@coatcheck/session-upstash';
import { defineConfig } from 'astro/config';

export default defineConfig({
  output: 'server',
  adapter: vercel(),
  devToolbar: { enabled: false },
  session: { driver: upstashDriver({ timeout: fromEnv('SESSION_TIMEOUT') }) },
});
`;
  return { astro: '7-vercel', driver: '', files: { 'astro.config.mjs': config, ...files } };
}

/** Builds the site and moves its function into an empty folder, where untraced files are missing, as on Vercel. */
async function deploy(): Promise<Built> {
  const built = await buildSite({ ...siteWith(), env: { UPSTASH_REDIS_REST_TOKEN: BUILD_TOKEN } });
  const dir = await mkdtemp(join(tmpdir(), 'coatcheck-vercel-'));
  const rendering = join(built.dir, '.vercel/output/functions/_render.func');
  await cp(rendering, join(dir, '_render.func'), { recursive: true, verbatimSymlinks: true });
  await mkdir(join(dir, 'server'));
  await cp(new URL('apps/astro-7-vercel/launcher.js', import.meta.url), join(dir, 'server/entry.mjs'));
  return { ...built, dir, dist: dir };
}

let deployed: Built;
let bridge: UpstashBridge;
let site: Site;
let inspector: Redis;

beforeAll(async () => {
  deployed = await deploy();
  bridge = await startUpstashBridge(await redisUrl());
  inspector = new Redis(await redisUrl());
  site = await startSite(deployed, { env: environment() });
});

afterEach(() => bridge.inject());

afterAll(async () => {
  await site?.[Symbol.asyncDispose]();
  await bridge?.[Symbol.asyncDispose]();
  inspector?.disconnect();
  if (deployed) await rm(deployed.dir, { recursive: true, force: true });
});

function environment(more: Record<string, string> = {}): Record<string, string> {
  return { KV_REST_API_URL: bridge.url, KV_REST_API_TOKEN: bridge.token, SESSION_TIMEOUT: '60000', ...more };
}

async function requestsDuring(work: () => Promise<unknown>): Promise<number> {
  const before = bridge.requests.length;
  await work();
  return bridge.requests.length - before;
}

describe('a deployed site', () => {
  test('passes the shop scenario', () => isAShop(site));

  test('expires values, in the database as well', async () => {
    const visitor = createVisitor(site.url);
    const before = new Set(await inspector.keys('session:*'));
    await visitor.run([['set', 'code', '1234', { ttl: 2 }]]);
    const key = (await inspector.keys('session:*')).find((it) => !before.has(it));
    await expect.poll(() => visitor.run([['get', 'code']]), { interval: 50 }).toEqual([undefined]);
    await expect.poll(() => inspector.exists(key!), { interval: 50 }).toBe(0);
  });

  test('64 concurrent requests that change different keys lose no updates', async () => {
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'cart', 1]]);
    await Promise.all(
      Array.from({ length: 64 }, (_, index) =>
        visitor.fork().run([
          ['get', 'cart'],
          ['jitter', 20],
          ['set', `key${index}`, index],
        ]),
      ),
    );
    expect((await visitor.run([['keys']]))[0]).toHaveLength(65);
  });

  test('sends no unnecessary requests to Upstash', async () => {
    const visitor = createVisitor(site.url);
    expect(await requestsDuring(() => visitor.fetch('/flash'))).toBe(0);
    expect(await requestsDuring(() => visitor.run([['set', 'cart', 1]]))).toBe(2);
    expect(await requestsDuring(() => visitor.run([['get', 'cart'], ['get', 'user'], ['keys']]))).toBe(1);
    expect(
      await requestsDuring(() =>
        visitor.run([
          ['get', 'cart'],
          ['set', 'cart', 2],
        ]),
      ),
    ).toBe(2);
  });
});

describe('a function that was frozen while its connections were closed', () => {
  const programs = {
    'a read': [['get', 'cart']],
    'a write': [['set', 'cart', 'hat']],
    'a sign-in': [['regenerate'], ['set', 'cart', 'hat']],
  } as const;

  for (const [name, program] of Object.entries(programs)) {
    test.each(['after it was thawed', 'that is waiting when it is thawed'])(`answers ${name} %s`, async (when) => {
      const visitor = createVisitor(site.url);
      for (let round = 0; round < 5; round++) {
        await visitor.run([['set', 'cart', 'hat']]);
        expect(bridge.connections).toBeGreaterThan(0);
        site.freeze();
        bridge.closeIdleConnections();
        await expect.poll(() => bridge.connections).toBe(0);
        const waiting = when.startsWith('that') ? visitor.run([...program] as never) : undefined;
        site.thaw();
        await (waiting ?? visitor.run([...program] as never));
        expect(await visitor.run([['get', 'cart']])).toEqual(['hat']);
      }
    });
  }
});

describe('configuration and outages', () => {
  const timeout = 3000;

  test('the deployment contains nothing of the build machine’s environment', async () => {
    const files = await readdir(deployed.dir, { recursive: true, withFileTypes: true });
    const texts = files.filter((it) => it.isFile()).map((it) => readFile(join(it.parentPath, it.name), 'utf8'));
    expect((await Promise.all(texts)).filter((text) => text.includes(BUILD_TOKEN))).toEqual([]);
  });

  test.each([
    [{ KV_REST_API_TOKEN: '' }, 'configuration', 'UPSTASH_REDIS_REST_TOKEN (or KV_REST_API_TOKEN) is not set.'],
    [{ KV_REST_API_TOKEN: 'wrong' }, 'configuration', 'Upstash refuses the token'],
  ])('a site reports what is missing: %o', async (more, code, says) => {
    await using wrong = await startSite(deployed, { env: environment(more) });
    const visitor = createVisitor(wrong.url, [['astro-session', crypto.randomUUID()]]);
    const { outcomes } = await visitor.attempt([['get', 'cart']]);
    expect(outcomes).toMatchObject([{ error: { message: expect.stringContaining(says) } }]);
    expect(JSON.stringify(outcomes)).toContain(code);
  });

  test.each([
    ['down', { kind: 'status', status: 503, body: 'Service Unavailable', contentType: 'text/plain' }],
    ['too busy', { kind: 'status', status: 429, body: '{"error":"Too Many Requests"}' }],
    ['silent', { kind: 'silent' }],
    ['late', { kind: 'late', ms: timeout * 10 }],
    ['cutting its answers off', { kind: 'cut' }],
    ['truncating its answers', { kind: 'truncated' }],
  ] as const)(
    'Upstash is %s: requests get responses, nobody is signed out, and everything works again afterwards',
    async (_, fault) => {
      await using other = await startSite(deployed, { env: environment({ SESSION_TIMEOUT: String(timeout) }) });
      const visitor = createVisitor(other.url);
      await visitor.run([['set', 'user', 'ada']]);
      const id = visitor.sessionId();
      bridge.inject(fault);
      const { outcomes, status } = await visitor.attempt([['get', 'user']]);
      expect(status).toBe(200);
      expect(outcomes).toMatchObject([{ error: { message: expect.stringMatching(/^\[session-upstash\] /) } }]);
      expect(await visitor.attempt([['set', 'user', 'ada']])).toMatchObject({ status: 500 });
      bridge.inject();
      await expect
        .poll(() => visitor.attempt([['get', 'user']]), { interval: 20 })
        .toMatchObject({
          outcomes: [{ value: 'ada' }],
        });
      expect(visitor.sessionId()).toBe(id);
    },
  );
});

// `secrets.test.ts` reads `.env` with another driver.
test.each(everything ? ['astro dev'] : [])('`%s` passes the shop scenario, with the database in `.env`', async () => {
  const variables = Object.entries(environment()).map(([name, value]) => `${name}=${value}\n`);
  await using dev = await devSite(siteWith({ '.env': variables.join('') }));
  expect(await requestsDuring(() => isAShop(dev))).toBeGreaterThan(0);
});
