import postgres from '@coatcheck/session-postgres/runtime';
import redis from '@coatcheck/session-redis/runtime';
import upstash from '@coatcheck/session-upstash/runtime';
import { describe, expect, test } from 'vitest';
import { checkSite, type Site, type SiteDriver } from '../src/check-site.ts';

const node = '@astrojs/node';
const vercel = '@astrojs/vercel';
const netlify = '@astrojs/netlify';
const cloudflare = '@astrojs/cloudflare';

const ours = (name: string, config: Record<string, unknown> = {}): SiteDriver => ({ kind: 'coatcheck', name, config });
const idle = ours('session-sqlite', { idleTtl: 60 });

/** A built site without problems, changed as a test needs it. */
const siteWith = (changes: Partial<Site>): Site => ({
  adapter: node,
  driver: ours('session-sqlite'),
  base: '/',
  isDev: false,
  ...changes,
});

/** The problems of a site, as a subject, the word `error` for what cannot work, and the message. */
const problemsOf = (changes: Partial<Site>): string[] =>
  checkSite(siteWith(changes)).map(
    ({ subject, isError, message }) => `${subject}${isError ? ' error' : ''}: ${message}`,
  );

test('a site without problems', () => {
  expect(problemsOf({})).toEqual([]);
  expect(problemsOf({ driver: { kind: 'own' }, adapter: cloudflare })).toEqual([]);
});

test('a site without an adapter has no visitors with sessions, whatever its driver is', () => {
  for (const driver of [ours('session-sqlite'), { kind: 'none' }, { kind: 'other', name: 'redis' }] as SiteDriver[]) {
    expect(problemsOf({ adapter: undefined, driver })).toEqual([
      expect.stringMatching(/^no-adapter: .*`npx astro add node`[^]*output: 'server'[^]*prerender = false/),
    ]);
  }
});

describe('the driver', () => {
  test.each([
    ['a-strange-adapter', 'sqliteDriver', 'session-sqlite'],
    [node, 'sqliteDriver', 'session-sqlite'],
    [vercel, 'postgresDriver', 'session-postgres'],
    [netlify, 'netlifyBlobsDriver', 'session-netlify-blobs'],
    [cloudflare, 'd1Driver', 'session-d1'],
  ])('of a site on %s that has none: the line to write', (adapter, driver, name) => {
    const line = `  import { ${driver} } from '@coatcheck/${name}';\n  session: { driver: ${driver}() },`;
    for (const other of [
      { kind: 'none' },
      { kind: 'none', disabled: true },
      { kind: 'other', name: 'unstorage/drivers/mongodb' },
    ] as const) {
      const [problem, ...more] = problemsOf({ adapter, driver: other });
      expect(problem).toContain(`Install @coatcheck/${name}`);
      expect(problem).toContain(line);
      expect(more).toEqual([]);
    }
  });

  test.each<[adapter: string, driver: string, suggested: string]>([
    [node, 'unstorage/drivers/redis', 'redisDriver'],
    [cloudflare, 'redis', 'd1Driver'],
    [vercel, 'upstash', 'upstashDriver'],
    [node, 'vercelKV', 'upstashDriver'],
    [node, 'unstorage/drivers/lru-cache', 'memoryDriver'],
    [vercel, 'lruCache', 'postgresDriver'],
    [node, 'unstorage/drivers/fs-lite', 'sqliteDriver'],
    [vercel, 'fsLite', 'postgresDriver'],
    [cloudflare, 'unstorage/drivers/cloudflare-kv-binding', 'd1Driver'],
  ])("on %s, one of Astro's own, %s: the same backend if it suits the adapter", (adapter, name, suggested) => {
    const [problem] = problemsOf({ adapter, driver: { kind: 'other', name } });
    expect(/driver: (\w+)\(/.exec(problem!)![1]).toBe(suggested);
  });

  test.each<[adapter: string, installed: string[], suggestion: string]>([
    [node, ['session-redis'], 'session-redis is installed. Set `session.driver`'],
    [node, ['session-d1', 'session-postgres'], 'session-postgres is installed. Set `session.driver`'],
    [cloudflare, ['session-redis'], 'Install @coatcheck/session-d1 '],
  ])(
    'on %s with %o in package.json: the installed package that suits the adapter',
    (adapter, installed, suggestion) => {
      for (const driver of [{ kind: 'none' }, { kind: 'other', name: 'lruCache' }] as SiteDriver[])
        expect(problemsOf({ adapter, driver, installed })).toEqual([expect.stringContaining(suggestion)]);
    },
  );

  test('Netlify Blobs outside of Netlify: the options that it needs', () => {
    expect(problemsOf({ driver: ours('session-netlify-blobs') })[0]).toContain(
      "  import { fromEnv, netlifyBlobsDriver } from '@coatcheck/session-netlify-blobs';\n" +
        "  session: { driver: netlifyBlobsDriver({ siteID: fromEnv('NETLIFY_SITE_ID'), token: fromEnv('NETLIFY_AUTH_TOKEN') }) },",
    );
  });

  test('says why', () => {
    expect(problemsOf({ driver: { kind: 'none' } })).toEqual([
      expect.stringMatching(/^no-driver: The site has no session driver, so there is no `Astro\.session`\. /),
    ]);
    expect(problemsOf({ driver: { kind: 'none', disabled: true } })).toEqual([
      expect.stringMatching(/^no-driver: `session: false` turns sessions off, /),
    ]);
    expect(problemsOf({ driver: { kind: 'other', name: 'unstorage/drivers/fs-lite' } })).toEqual([
      expect.stringMatching(
        /^other-driver: The session driver is unstorage\/drivers\/fs-lite\. With .+ erase each other's/,
      ),
    ]);
    // Nobody knows what it creates.
    expect(problemsOf({ driver: { kind: 'other', name: 'acme-sessions', isPackage: true } })).toEqual([
      expect.stringMatching(
        /^other-driver: The session driver is acme-sessions\. Unless it creates a Coatcheck driver, .+ erase each other's/,
      ),
    ]);
  });

  const blobs = { siteID: 'id', token: { fromEnv: 'TOKEN' } };
  test.each<[adapter: string, driver: SiteDriver, problem: RegExp | undefined, inDev: RegExp | undefined]>([
    [vercel, ours('session-memory'), /^unsuited-driver: .*at random[^]*postgresDriver/, undefined],
    [netlify, ours('session-memory'), /^unsuited-driver: .*at random[^]*netlifyBlobsDriver/, undefined],
    [cloudflare, ours('session-memory'), /^unsuited-driver: .*isolate[^]*d1Driver/, undefined],
    [vercel, ours('session-fs'), /^unsuited-driver: .*disk/, undefined],
    [netlify, ours('session-sqlite'), /^unsuited-driver: .*disk/, undefined],
    [cloudflare, ours('session-fs'), /^unsuited-driver error: .*no disk/, /^unsuited-driver error: .*no disk/],
    [cloudflare, ours('session-sqlite'), /^unsuited-driver error: .*no disk/, /^unsuited-driver error: .*no disk/],
    [cloudflare, ours('session-cloudflare-kv'), /^unsuited-driver: .*KV loses[^]*d1Driver/, /KV loses/],
    [cloudflare, ours('session-redis'), /^unsuited-driver: .*Node/, /^unsuited-driver: .*Node/],
    [cloudflare, ours('session-postgres'), /^unsuited-driver: .*Node/, /^unsuited-driver: .*Node/],
    [node, ours('session-cloudflare-kv'), /^unsuited-driver error: .*binding/, /^unsuited-driver error: /],
    [vercel, ours('session-d1'), /^unsuited-driver error: .*binding/, /^unsuited-driver error: /],
    [netlify, ours('session-durable-objects'), /^unsuited-driver error: .*binding/, /^unsuited-driver error: /],
    [node, ours('session-netlify-blobs'), /^unsuited-driver error: .*siteID/, /^unsuited-driver error: .*siteID/],
    [node, ours('session-netlify-blobs', blobs), undefined, undefined],
    [netlify, ours('session-netlify-blobs'), undefined, undefined],
    [cloudflare, ours('session-d1'), undefined, undefined],
    [cloudflare, ours('session-durable-objects'), undefined, undefined],
    [cloudflare, ours('session-upstash'), undefined, undefined],
    [vercel, ours('session-postgres'), undefined, undefined],
    [vercel, ours('session-redis'), undefined, undefined],
    [node, ours('session-memory'), undefined, undefined],
    ['a-strange-adapter', ours('session-memory'), undefined, undefined],
  ])('on %s: %o', (adapter, driver, problem, inDev) => {
    const expected = (pattern: RegExp | undefined) => (pattern ? [expect.stringMatching(pattern)] : []);
    expect(problemsOf({ adapter, driver })).toEqual(expected(problem));
    expect(problemsOf({ adapter, driver, isDev: true })).toEqual(expected(inDev));
  });
});

describe('environment variables', () => {
  const missing = (driver: SiteDriver, ...set: string[]): string[] =>
    checkSite(siteWith({ driver, isDev: true, hasVariable: (name) => set.includes(name) })).map(
      ({ subject, message }) => {
        expect(subject).toBe('missing-variable');
        return /^ {2}(\w+)=/m.exec(message)![1]!;
      },
    );

  test.each<[driver: SiteDriver, set: string[], missing: string[]]>([
    [ours('session-redis'), [], ['REDIS_URL']],
    [ours('session-redis'), ['REDIS_URL'], []],
    [ours('session-redis', { host: 'redis' }), [], []],
    [ours('session-redis', { sentinel: { name: 'main', nodes: ['a'] } }), [], []],
    [ours('session-redis', { url: { fromEnv: 'SESSIONS' } }), ['REDIS_URL'], ['SESSIONS']],
    [ours('session-redis', { url: { fromEnv: 'SESSIONS' } }), ['SESSIONS'], []],
    [ours('session-redis', { sentinel: { nodes: [{ host: { fromEnv: 'HOST' } }] } }), [], ['HOST']],
    [ours('session-postgres'), [], ['DATABASE_URL']],
    [ours('session-postgres'), ['PGHOST'], []],
    [ours('session-upstash'), [], ['UPSTASH_REDIS_REST_URL', 'UPSTASH_REDIS_REST_TOKEN']],
    [ours('session-upstash'), ['KV_REST_API_URL', 'KV_REST_API_TOKEN'], []],
    [ours('session-upstash', { url: 'https://a.upstash.io' }), [], ['UPSTASH_REDIS_REST_TOKEN']],
    [ours('session-memory', { ttl: { fromEnv: 'TTL' }, prefix: { fromEnv: 'TTL' } }), [], ['TTL']],
    [ours('session-memory'), [], []],
    [{ kind: 'own' }, [], []],
  ])('%o with %o', (driver, set, expected) => {
    expect(missing(driver, ...set)).toEqual(expected);
  });

  test('are unknown in a build', () => {
    expect(problemsOf({ driver: ours('session-redis') })).toEqual([]);
  });

  // The names are those that the drivers themselves ask for.
  test.each([
    ['session-redis', redis],
    ['session-postgres', postgres],
    ['session-upstash', upstash],
  ])('are those that %s misses', async (name, create) => {
    const driver = create({}, { env: () => undefined });
    const [first = ''] = missing(ours(name));
    await expect(driver.getItem(crypto.randomUUID())).rejects.toThrow(first);
  });
});

describe('the cookie', () => {
  test.each<[title: string, changes: Partial<Site>, problem: RegExp]>([
    [
      'SameSite=None without Secure',
      { cookie: { sameSite: 'none', secure: false } },
      /^cookie error: .*`session\.cookie\.secure`/,
    ],
    [
      '__Host- with a domain',
      { cookie: { name: '__Host-id', domain: 'a.example' } },
      /^cookie error: .*`session\.cookie\.domain`/,
    ],
    ['__Host- with a path', { cookie: { name: '__Host-id', path: '/a' }, base: '/a' }, /^cookie error: .*__Host-/],
    ['__Secure- without Secure', { cookie: { name: '__Secure-id', secure: false } }, /^cookie error: .*`__Secure-`/],
    ['a name with a space', { cookie: { name: 'a b' } }, /^cookie error: `session\.cookie\.name`/],
    ['a name that is too long', { cookie: { name: 'a'.repeat(4061) } }, /^cookie error: .*4061 characters/],
    ['no life', { cookie: { maxAge: 0 } }, /^cookie error: `session\.cookie\.maxAge`/],
    ['a life that Astro rejects', { cookie: { maxAge: 1.5 } }, /^cookie error: `session\.cookie\.maxAge` is `1\.5`/],
    ['a domain with a scheme', { cookie: { domain: 'https://a.example' } }, /^cookie error: `session\.cookie\.domain`/],
    [
      'an IP address',
      { cookie: { domain: '127.0.0.1' } },
      /^cookie: .*IP address.*\. Remove `session\.cookie\.domain`\.$/,
    ],
    ['a top-level domain', { cookie: { domain: 'example' } }, /^cookie: .*`example`/],
    ['a second-level domain of a country', { cookie: { domain: '.co.uk' } }, /^cookie: .*`\.co\.uk`/],
    ['a host of many sites', { cookie: { domain: 'Vercel.app' } }, /^cookie: .*all sites under it/],
    [
      'the domain of another site',
      { cookie: { domain: 'a.example' }, url: 'https://b.example' },
      /^cookie: .*b\.example/,
    ],
    [
      'the end of a name as a domain',
      { cookie: { domain: 'a.example' }, url: 'https://aa.example' },
      /^cookie: .*aa\.example/,
    ],
    [
      'a path outside of the site',
      { cookie: { path: '/shop' }, base: '/docs' },
      /^cookie: .*`\/docs`.* Set `session\.cookie\.path` to `'\/docs'`\.$/,
    ],
    ['a path with a slash that the base has not', { cookie: { path: '/shop/' }, base: '/shop' }, /^cookie: .*`\/shop`/],
    [
      'a path that the base only begins with',
      { cookie: { path: '/shop' }, base: '/shopping' },
      /^cookie: .*`\/shopping`/,
    ],
    [
      'SameSite=None in development',
      { cookie: { sameSite: 'none' }, isDev: true },
      /^cookie: .*SameSite=None.* Set `session\.cookie\.secure` to `true`\.$/,
    ],
    ['__Host- in development', { cookie: { name: '__Host-id' }, isDev: true }, /^cookie: .*__Host-id.* to `true`\.$/],
    ['renewal without a life', { renewCookie: true }, /^cookie: .*renewed.* Set `session\.cookie\.maxAge` to a number/],
    [
      'renewal by a module of the site, without a life',
      { driver: { kind: 'own' }, renewCookie: true },
      /^cookie: .* to twice/,
    ],
    ['an idle limit without a life', { driver: idle }, /^cookie: .*renewed.* Set `session\.cookie\.maxAge` to `120`/],
    [
      'a life that is as short as the idle limit',
      { driver: idle, cookie: { maxAge: 60 } },
      /^cookie: .*is `60`, and `idleTtl` is `60`: .* Set `session\.cookie\.maxAge` to `120`/,
    ],
  ])('%s', (_title, changes, problem) => {
    expect(problemsOf(changes)).toEqual([expect.stringMatching(problem)]);
  });

  test.each<Partial<Site>>([
    { cookie: {} },
    { cookie: { name: '__Host-id', secure: true }, isDev: true },
    { cookie: { name: '__Host-id' } },
    { cookie: { name: 'a'.repeat(4060) } },
    { cookie: { sameSite: 'none' } },
    { cookie: { domain: 'shop.example', maxAge: 1 }, url: 'https://www.shop.example/' },
    { cookie: { domain: 'shop.example' }, url: 'https://shop.example' },
    { cookie: { domain: 'mine.vercel.app' } },
    { cookie: { domain: 'localhost' } },
    { cookie: { domain: '127.0.0.1' }, url: 'http://127.0.0.1:4321' },
    { cookie: { path: '/shop' }, base: '/shop/' },
    { cookie: { path: '/shop/' }, base: '/shop/' },
    { cookie: { path: '/' }, base: 'docs' },
    { driver: idle, cookie: { maxAge: 61 } },
    { driver: idle, renewCookie: false },
    { driver: ours('session-sqlite', { idleTtl: { fromEnv: 'IDLE' } }), cookie: { maxAge: 60 } },
    { driver: { kind: 'own' } },
  ])('no problem: %o', (changes) => {
    expect(problemsOf(changes)).toEqual([]);
  });
});
