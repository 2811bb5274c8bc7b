import { randomUUID } from 'node:crypto';
import type { Workers } from './support/worker-site.ts';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createVisitor } from './support/http.ts';
import { keptOf64, isNotRestored } from './support/isolate-races.ts';
import { astros } from './support/scope.ts';
import { isAShop } from './support/shop.ts';
import { buildSite, devSite, type DevSite, type SiteSpec } from './support/site.ts';
import { startWorkersWith, workerSiteWith } from './support/worker-site.ts';

// `Astro.session` in D1: a site built by `@astrojs/cloudflare` runs in workerd.

interface SiteOptions {
  astro?: 6 | 7;
  driver?: string;
  binding?: string;
}

const site = ({ astro = 7, driver = 'd1Driver()', binding = 'DB' }: SiteOptions = {}): SiteSpec =>
  workerSiteWith({
    astro,
    driver,
    imports: `import { d1Driver, fromEnv } from '@coatcheck/session-d1';`,
    // The adapter adds a KV namespace if there is none, because its own driver would need it.
    wrangler: {
      d1_databases: [{ binding, database_name: 'sessions', database_id: 'sessions' }],
      kv_namespaces: [],
    },
  });

async function start(
  spec: SiteSpec,
  d1Databases: Record<string, string>,
  isolates = 1,
  bindings = {},
): Promise<Workers> {
  const built = await buildSite(spec);
  return startWorkersWith(built.dist, { isolates, resources: { d1Databases, bindings } });
}

async function stored({ miniflare }: Workers, binding = 'DB'): Promise<string> {
  const database = await miniflare.getD1Database(binding, 'isolate-0');
  return JSON.stringify((await database.prepare('SELECT * FROM coatcheck_sessions').all()).results);
}

describe.each(astros)('a built Worker on Astro %i', (astro) => {
  let workers: Workers;
  beforeAll(async () => {
    workers = await start(site({ astro }), { DB: 'sessions' }, 2);
  });
  afterAll(() => workers?.[Symbol.asyncDispose]());

  it('passes the shop scenario', () => isAShop({ url: workers.urls[0]! }));

  it('loses no updates of 64 concurrent requests in two isolates', async () => {
    expect(await keptOf64(workers.urls)).toBe(64);
  });

  it('a session that is destroyed during concurrent writes stays destroyed', () => isNotRestored(workers.urls));

  it('another isolate sees a write and a sign-out at once', async () => {
    const [one = '', other = ''] = workers.urls;
    const visitor = createVisitor(one);
    await visitor.run([['set', 'user', 'ada']]);
    const elsewhere = visitor.fork(other);
    expect(await elsewhere.run([['get', 'user']])).toEqual(['ada']);
    await visitor.run([['destroy']]);
    expect(await elsewhere.run([['get', 'user']])).toEqual([undefined]);
  });

  it('stores no session ids in D1, and no data after the sign-out', async () => {
    const visitor = createVisitor(workers.urls[0]!);
    await visitor.run([['set', 'user', 'ada-lovelace']]);
    const id = visitor.sessionId()!;
    expect(await stored(workers)).toContain('ada-lovelace');
    expect(await stored(workers)).not.toContain(id);
    await visitor.run([['destroy']]);
    expect(await stored(workers)).not.toContain('ada-lovelace');
  });
});

describe.each(astros)('astro dev on Astro %i', (astro) => {
  let dev: DevSite;
  beforeAll(async () => {
    dev = await devSite(site({ astro }));
  });
  afterAll(async () => {
    // SIGTERM, unlike SIGKILL, also ends its workerd.
    await dev?.stop();
    await dev?.[Symbol.asyncDispose]();
  });

  it('passes the shop scenario', () => isAShop({ url: dev.url }));
});

describe('the database', () => {
  it('can have another binding, from a variable, and contain encrypted sessions', async () => {
    const driver = `d1Driver({ database: fromEnv('SESSIONS_BINDING'), secrets: fromEnv('SESSION_SECRETS') })`;
    const bindings = { SESSIONS_BINDING: 'CARTS', SESSION_SECRETS: 'a-secret-of-at-least-32-characters-1' };
    await using workers = await start(site({ driver, binding: 'CARTS' }), { CARTS: 'sessions' }, 1, bindings);
    const visitor = createVisitor(workers.urls[0]!);
    await visitor.run([['set', 'cart', ['hat']]]);
    expect(await visitor.run([['get', 'cart']])).toEqual([['hat']]);
    expect(await stored(workers, 'CARTS')).not.toContain('hat');
  });

  it('if it is missing, the error contains the lines to paste', async () => {
    await using workers = await start(site(), {});
    const visitor = createVisitor(workers.urls[0]!);
    visitor.cookies.set('astro-session', randomUUID());
    const [outcome] = (await visitor.attempt([['get', 'cart']])).outcomes!;
    const { message } = (outcome as { error: { message: string } }).error;
    expect(message).toContain('npx wrangler d1 create sessions');
    expect(message).toContain(
      '"d1_databases": [{ "binding": "DB", "database_name": "sessions", "database_id": "<id>" }]',
    );
  });
});
