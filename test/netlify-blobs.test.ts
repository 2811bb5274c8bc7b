import { cp, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import sweepSessions from './apps/astro-7-netlify/netlify/functions/sweep-sessions.ts';
import {
  contextFor,
  startBlobs,
  startGateway,
  TOKEN,
  type Blobs,
  type Gateway,
} from '../packages/session-netlify-blobs/test/support/blobs.ts';
import { startProxy } from './support/fault-proxy.ts';
import { createVisitor } from './support/http.ts';
import { isAShop } from './support/shop.ts';
import { buildSite, devSite, startSite, type Built, type SiteSpec } from './support/site.ts';

// `Astro.session` on Netlify Blobs: a site built by `@astrojs/netlify`, with its function called as Netlify calls it, and `astro dev`.

const appFolder = fileURLToPath(new URL('./apps/astro-7-netlify/', import.meta.url));

/** The adapter without the development features that need a Netlify account or Deno. None of them affects sessions. */
const adapter = 'netlify({ devFeatures: { images: false, edgeFunctions: false, environmentVariables: false } })';

function siteWith(options: string): SiteSpec {
  const config = `
import netlify from '@astrojs/netlify';
import { fromEnv, netlifyBlobsDriver } from '@coatcheck/session-netlify-blobs';
import { defineConfig } from 'astro/config';

export default defineConfig({
  output: 'server',
  adapter: ${adapter},
  devToolbar: { enabled: false },
  session: { driver: netlifyBlobsDriver(${options}) },
});
`;
  return { astro: '7-netlify', driver: '', files: { 'astro.config.mjs': config } };
}

/** The environment variables of the built function. */
function environment(context: string, more: Record<string, string> = {}): Record<string, string> {
  return {
    SESSION_TTL: '3600',
    SESSION_TIMEOUT: '60000',
    ...(context && { NETLIFY_BLOBS_CONTEXT: context }),
    ...more,
  };
}

/** Copies only the function out of this workspace, as on Netlify. */
async function deploy(spec: SiteSpec, folder: string): Promise<Built> {
  const built = await buildSite(spec);
  const dir = await mkdtemp(join(folder, 'deploy-'));
  await cp(join(built.dir, '.netlify/v1'), join(dir, '.netlify/v1'), { recursive: true, verbatimSymlinks: true });
  return { ...built, dir, dist: appFolder };
}

describe('the built function', () => {
  let built: Built;
  let blobs: Blobs;
  let gateway: Gateway;

  beforeAll(async () => {
    const folder = await mkdtemp(join(tmpdir(), 'coatcheck-netlify-'));
    built = await deploy(siteWith(`{ ttl: fromEnv('SESSION_TTL'), timeout: fromEnv('SESSION_TIMEOUT') }`), folder);
    blobs = await startBlobs();
    gateway = await startGateway(blobs);
    return async () => {
      await gateway[Symbol.asyncDispose]();
      await blobs[Symbol.asyncDispose]();
      await rm(folder, { recursive: true, force: true });
    };
  }, 300_000);

  afterEach(() => {
    vi.unstubAllEnvs();
    vi.useRealTimers();
    vi.restoreAllMocks();
    gateway.answerWith = undefined;
    gateway.requests.length = 0;
  });

  test('passes the shop scenario', async () => {
    await using site = await startSite(built, { env: environment(contextFor(gateway.port)) });
    await isAShop(site);
    expect(gateway.requests.every((request) => request.includes('/site:sessions/'))).toBe(true);
  });

  test('sessions survive the end of the function, and its instances share them', async () => {
    const env = environment(contextFor(gateway.port));
    await using first = await startSite(built, { env });
    await using second = await startSite(built, { env });
    const visitor = createVisitor(first.url);
    await visitor.run([['set', 'start', 0]]);
    const keys = Array.from({ length: 64 }, (_, index) => `cart:${index}`);
    await Promise.all(
      keys.map((key, index) =>
        visitor.fork([first, second][index % 2]!.url).run([
          ['get', 'start'],
          ['set', key, index],
        ]),
      ),
    );
    await first.stop();
    const [found] = await visitor.fork(second.url).run([['keys']]);
    expect(found).toEqual(expect.arrayContaining(keys));
    expect(found).toHaveLength(65);
  });

  test('a session expires after its ttl', async () => {
    await using site = await startSite(built, { env: environment(contextFor(gateway.port), { SESSION_TTL: '1' }) });
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'cart', 1]]);
    expect(visitor.sessionId()).toBeDefined();
    await expect.poll(() => visitor.fork().run([['get', 'cart']])).toEqual([undefined]);
  });

  test('the scheduled function sweeps expired sessions', async () => {
    const context = contextFor(gateway.port, { siteID: 'a-site-of-its-own' });
    await using site = await startSite(built, { env: environment(context, { SESSION_TTL: '60' }) });
    await Promise.all(Array.from({ length: 10 }, (_, index) => createVisitor(site.url).run([['set', 'cart', index]])));
    const log = vi.spyOn(console, 'log').mockImplementation(() => undefined);
    vi.stubEnv('NETLIFY_BLOBS_CONTEXT', context);
    await sweepSessions();
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 3_600_000 });
    await sweepSessions();
    await sweepSessions();
    expect(log.mock.calls.flat()).toEqual([0, 10, 0].map((count) => `${count} expired sessions removed`));
  });

  test('a function that was frozen while its connections were closed answers the next request', async () => {
    await using proxy = await startProxy({ target: gateway.port });
    await using site = await startSite(built, { env: environment(contextFor(proxy.port)) });
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'cart', 1]]);
    site.freeze();
    await proxy.reset();
    await proxy.pass();
    site.thaw();
    expect(
      await visitor.run([
        ['get', 'cart'],
        ['set', 'cart', 2],
      ]),
    ).toEqual([1, undefined]);
    expect(await visitor.run([['get', 'cart']])).toEqual([2]);
  });

  test('if Blobs is down, silent, slow or cuts off replies, requests get responses and nobody is signed out', async () => {
    await using proxy = await startProxy({ target: gateway.port });
    await using site = await startSite(built, {
      env: environment(contextFor(proxy.port), { SESSION_TIMEOUT: '3000' }),
    });
    const visitor = createVisitor(site.url);
    await visitor.run([['set', 'user', 'ada']]);
    const troubles = [() => proxy.refuse(), () => proxy.silence(), () => proxy.delay(600_000), () => proxy.cut(40)];
    for (const breakIt of troubles) {
      await breakIt();
      const { outcomes } = await visitor.attempt([['get', 'user']]);
      // Astro logs its own error, with ours as the cause.
      expect(JSON.stringify(outcomes)).toMatch(/\[session-netlify-blobs\] .*(?:does not answer|did not answer)/);
      expect(await visitor.attempt([['set', 'cart', 1]])).toMatchObject({ status: 500 });
      await proxy.pass();
      await expect.poll(() => visitor.attempt([['get', 'user']])).toMatchObject({ outcomes: [{ value: 'ada' }] });
    }
    expect(site.logs()).not.toContain(TOKEN);
  });

  test('a refused token and a missing context cause clear errors', async () => {
    await using refused = await startSite(built, {
      env: environment(contextFor(gateway.port, { token: 'wrong-token' })),
    });
    const outcomes = JSON.stringify(
      (await createVisitor(refused.url).attempt([['load', crypto.randomUUID()]])).outcomes,
    );
    expect(outcomes).toContain('Netlify refuses access to the blob store (403)');
    await using without = await startSite(built, { env: environment('') });
    const other = JSON.stringify((await createVisitor(without.url).attempt([['load', crypto.randomUUID()]])).outcomes);
    expect(other).toContain('NETLIFY_BLOBS_CONTEXT is not set');
    expect(outcomes + refused.logs()).not.toContain('wrong-token');
  });
});

test('the scheduled function is the one in the README', async () => {
  const read = (path: string) => readFile(new URL(path, import.meta.url), 'utf8');
  const shown = await read('../packages/session-netlify-blobs/README.md');
  expect(shown).toContain(await read('./apps/astro-7-netlify/netlify/functions/sweep-sessions.ts'));
});

describe('astro dev', () => {
  test('passes the shop scenario, on the adapter’s local blobs', async () => {
    // The adapter writes its state into the home folder.
    const home = await mkdtemp(join(tmpdir(), 'coatcheck-netlify-'));
    try {
      const options = { nodeArgs: ['--import', `${appFolder}offline.js`], env: { HOME: home } };
      const spec = siteWith('');
      // A file in the place of a folder keeps the adapter from starting its database, which takes most of the time.
      const files = { ...spec.files, '.netlify/db': '' };
      await using site = await devSite({ ...spec, files }, options);
      await isAShop(site);
    } finally {
      await rm(home, { recursive: true, force: true });
    }
  });
});
