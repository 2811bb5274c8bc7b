import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startWorkers, workerSite, type Workers } from '../packages/session-cloudflare-kv/test/support/site.ts';
import { createVisitor } from './support/http.ts';
import { keptOf64, isNotRestored } from './support/isolate-races.ts';
import { astros } from './support/scope.ts';
import { isAShop } from './support/shop.ts';
import { buildSite, devSite, type DevSite } from './support/site.ts';

describe.each(astros)('a built Worker on Astro %i', (astro) => {
  let workers: Workers;
  beforeAll(async () => {
    const built = await buildSite(workerSite({ astro }));
    workers = await startWorkers(built.dist, { isolates: 2 });
  });
  afterAll(() => workers?.[Symbol.asyncDispose]());

  it('passes the shop scenario', () => isAShop({ url: workers.urls[0]! }));

  it('lets KV expire the record with its longest-lived entry, but not within a minute', async () => {
    const namespace = await workers.miniflare.getKVNamespace('SESSION', 'isolate-0');
    const before = new Set((await namespace.list()).keys.map((key) => key.name));
    const startedAt = Date.now() / 1000;
    await createVisitor(workers.urls[0]!).run([['set', 'code', 1, { ttl: 1 }]]);
    await createVisitor(workers.urls[0]!).run([
      ['set', 'code', 1, { ttl: 1 }],
      ['set', 'cart', 1, { ttl: 3600 }],
    ]);
    const added = (await namespace.list()).keys.filter((key) => !before.has(key.name));
    const endedAt = Date.now() / 1000;
    const [short, long] = added.map(({ expiration }) => expiration!).sort((one, other) => one - other);
    expect(added).toHaveLength(2);
    // The write happened between the two timestamps, and KV rounds to seconds.
    expect(short).toBeGreaterThanOrEqual(Math.floor(startedAt + 60));
    expect(short).toBeLessThanOrEqual(endedAt + 61);
    expect(long).toBeGreaterThanOrEqual(Math.floor(startedAt + 3600));
    expect(long).toBeLessThanOrEqual(endedAt + 3601);
  });

  it('stores no session ids in KV, and no data after the sign-out', async () => {
    const visitor = createVisitor(workers.urls[0]!);
    await visitor.run([['set', 'user', 'ada-lovelace']]);
    const id = visitor.sessionId()!;
    const all = async (): Promise<string> => {
      const namespace = await workers.miniflare.getKVNamespace('SESSION', 'isolate-0');
      const { keys } = await namespace.list();
      const values = await Promise.all(keys.map(({ name }) => namespace.get(name)));
      return JSON.stringify([keys, values]);
    };
    expect(await all()).toContain('ada-lovelace');
    expect(await all()).not.toContain(id);
    await visitor.run([['destroy']]);
    expect(await all()).not.toContain('ada-lovelace');
  });

  it('loses no updates of 64 concurrent requests in one isolate', async () => {
    expect(await keptOf64([workers.urls[0]!])).toBe(64);
  });

  // Without compare-and-set, the last write of a record wins between isolates, as the README says.
  it('keeps a valid session if two isolates write concurrently, but may lose changes', async () => {
    const kept = await keptOf64(workers.urls);
    console.log(`64 writers in two isolates: ${kept} of 64 changes kept`);
    expect(kept).toBeGreaterThan(0);
  });

  it('a session that is destroyed during concurrent writes stays destroyed', () => isNotRestored(workers.urls));
});

describe('astro dev', () => {
  let site: DevSite;
  beforeAll(async () => {
    site = await devSite(workerSite());
  });
  afterAll(async () => {
    // SIGTERM, unlike SIGKILL, also ends its workerd.
    await site?.stop();
    await site?.[Symbol.asyncDispose]();
  });

  // Vite prepares the imports of the Worker only at the first requests.
  it('passes the shop scenario', () => isAShop({ url: site.url }));
});

describe('the namespace', () => {
  it('can have another name', async () => {
    const built = await buildSite(
      workerSite({ driver: `cloudflareKvDriver({ namespace: 'CARTS' })`, namespace: 'CARTS' }),
    );
    await using workers = await startWorkers(built.dist, { namespace: 'CARTS' });
    const visitor = createVisitor(workers.urls[0]!);
    await visitor.run([['set', 'cart', ['hat']]]);
    expect(await visitor.run([['get', 'cart']])).toEqual([['hat']]);
    const namespace = await workers.miniflare.getKVNamespace('CARTS', 'isolate-0');
    expect((await namespace.list()).keys).toHaveLength(1);
  });

  it('if it is missing, the error contains the lines to paste', async () => {
    const built = await buildSite(workerSite());
    await using workers = await startWorkers(built.dist, { namespace: '' });
    const visitor = createVisitor(workers.urls[0]!);
    visitor.cookies.set('astro-session', crypto.randomUUID());
    const [outcome] = (await visitor.attempt([['get', 'cart']])).outcomes!;
    const { message } = (outcome as { error: { message: string } }).error;
    expect(message).toContain('npx wrangler kv namespace create SESSION');
    expect(message).toContain('"kv_namespaces": [{ "binding": "SESSION", "id": "<id>" }]');
  });
});
