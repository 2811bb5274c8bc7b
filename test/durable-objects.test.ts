import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { startWorkers, workerSite, type Workers } from '../packages/session-cloudflare-kv/test/support/site.ts';
import { objectsSite } from '../packages/session-durable-objects/test/support/site.ts';
import { createVisitor } from './support/http.ts';
import { isNotRestored, keptOf64 } from './support/isolate-races.ts';
import { astros } from './support/scope.ts';
import { isAShop } from './support/shop.ts';
import { buildSite, devSite, type DevSite } from './support/site.ts';

// Sites with the configuration, the entry module and the Wrangler file of the README.

describe.each(astros)('a built Worker on Astro %i', (astro) => {
  let workers: Workers;
  beforeAll(async () => {
    const built = await buildSite(objectsSite({ astro }));
    workers = await startWorkers(built.dist, { isolates: 2, namespace: '' });
  });
  afterAll(() => workers?.[Symbol.asyncDispose]());

  it('passes the shop scenario', () => isAShop({ url: workers.urls[0]! }));

  it('loses no updates of 64 concurrent requests in two isolates', async () => {
    expect(await keptOf64(workers.urls)).toBe(64);
  });

  it('a session that is destroyed during concurrent writes stays destroyed', () => isNotRestored(workers.urls));
});

describe.each(astros)('astro dev on Astro %i', (astro) => {
  let site: DevSite;
  beforeAll(async () => {
    site = await devSite(objectsSite({ astro }));
  });
  afterAll(async () => {
    // SIGTERM, unlike SIGKILL, also ends its workerd.
    await site?.stop();
    await site?.[Symbol.asyncDispose]();
  });

  // Vite prepares the imports of the Worker only at the first requests.
  it('passes the shop scenario', () => isAShop({ url: site.url }));
});

describe('the binding', () => {
  it.each([
    ['is missing', `'NONE'`, 'has no Durable Object namespace: `NONE`'],
    ['is something else', `'ASSETS'`, 'has a variable that is not a Durable Object namespace: `ASSETS`'],
  ])('if it %s, the error contains the lines to paste', async (_, name, problem) => {
    const built = await buildSite(objectsSite({ driver: `durableObjectsDriver({ namespace: ${name} })` }));
    await using workers = await startWorkers(built.dist, { namespace: '' });
    const visitor = createVisitor(workers.urls[0]!);
    visitor.cookies.set('astro-session', crypto.randomUUID());
    const [outcome] = (await visitor.attempt([['get', 'cart']])).outcomes!;
    const { message } = (outcome as { error: { message: string } }).error;
    expect(message).toContain(problem);
    expect(message).toContain('"new_sqlite_classes": ["CoatcheckSession"]');
    expect(message).toContain("export { CoatcheckSession } from '@coatcheck/session-durable-objects/object';");
  });
});

it('sessions that the adapter stored in KV are migrated, and can be destroyed', async () => {
  const persist = await mkdtemp(join(tmpdir(), 'coatcheck-objects-'));
  onTestFinished(() => rm(persist, { recursive: true, force: true }));
  const [ada, grace] = await (async () => {
    await using before = await startWorkers((await buildSite(workerSite({ driver: 'undefined' }))).dist, { persist });
    const visitors = [createVisitor(before.urls[0]!), createVisitor(before.urls[0]!)] as const;
    for (const visitor of visitors) await visitor.run([['set', 'cart', ['hat']]]);
    return visitors;
  })();

  const driver = `durableObjectsDriver({ migrateFrom: { until: '2100-01-01' } })`;
  const { dist } = await buildSite(objectsSite({ driver, kv: true }));
  await using after = await startWorkers(dist, { isolates: 2, persist });
  const legacy = async (): Promise<string[]> => {
    const namespace = await after.miniflare.getKVNamespace('SESSION', 'isolate-0');
    return (await namespace.list()).keys.map(({ name }) => name);
  };
  expect(new Set(await legacy())).toEqual(new Set([ada.sessionId(), grace.sessionId()]));
  expect(await ada.fork(after.urls[0]).run([['get', 'cart']])).toEqual([['hat']]);
  expect(await legacy()).toEqual([grace.sessionId()]);
  expect(await ada.fork(after.urls[1]).run([['get', 'cart']])).toEqual([['hat']]);
  await grace.fork(after.urls[0]).run([['destroy']]);
  expect(await legacy()).toEqual([]);
  expect(await grace.fork(after.urls[1]).run([['keys']])).toEqual([[]]);
});
