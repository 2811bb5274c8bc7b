import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { startWorkers, workerSite, type Workers } from '../packages/session-cloudflare-kv/test/support/site.ts';
import { createVisitor, type Answer, type Visitor } from './support/http.ts';
import { astros } from './support/scope.ts';
import { buildSite, devSite, startSite, type Site, type SiteSpec } from './support/site.ts';

// Sites with the integration `@coatcheck/astro`: what its middleware costs, when it renews the cookie, and what `locals.sessions` says.

/** The pages of the sites, next to those of the test site. */
const files = {
  // Counts what the site asks of its backend. Astro loads the middleware before the first request.
  'src/middleware.ts': `
    import { tracingChannel } from 'node:diagnostics_channel';
    let asked = 0;
    for (const operation of ['read', 'patch', 'destroy']) {
      tracingChannel('coatcheck:' + operation).start.subscribe(() => void asked++);
    }
    export const onRequest = async (context, next) => {
      context.locals.asked = () => asked;
      if (context.url.pathname !== '/rewritten') return next();
      await context.locals.sessions.current();
      return context.rewrite('/sign-in');
    };`,
  'src/pages/sign-in.ts': `
    export const GET = async ({ session }) => {
      session.set('user', 'ada');
      return new Response('signed in');
    };`,
  // The headers of this response cannot be changed.
  'src/pages/fixed.ts': `
    export const GET = async ({ cookies, session, url }) => {
      await session.get('user');
      cookies.set('theme', 'dark');
      return Response.redirect(new URL('/plain', url));
    };`,
  'src/pages/asked.ts': `export const GET = ({ locals }) => Response.json(locals.asked());`,
  'src/pages/plain.astro': `<p>a page without a session</p>`,
  'src/pages/static.astro': `---\nexport const prerender = true;\n---\n<p>{String(Astro.locals.sessions)}</p>`,
  'src/pages/read.ts': `
    export const GET = async ({ session, url }) =>
      Response.json((await session.get('user')) ?? null, { headers: JSON.parse(url.searchParams.get('headers') ?? '{}') });`,
  'src/pages/current.ts': `
    export const GET = async ({ locals, session, url }) => {
      const user = url.searchParams.has('read') ? await session.get('user') : undefined;
      const [current, again] = [await locals.sessions.current(), await locals.sessions.current()];
      return Response.json({ current, again, user, destroyed: await locals.sessions.destroyed() });
    };`,
  'src/pages/long.ts': `
    import { passGate } from '../gates.ts';
    export const GET = async ({ locals, session, url }) => {
      await session.get('user');
      const before = await locals.sessions.destroyed();
      await passGate(url.searchParams.get('gate'));
      return Response.json([before, await locals.sessions.destroyed()]);
    };`,
};

interface Options {
  driver: string;
  from: string;
  cookie?: object;
  options?: string;
}

function configOf({ driver, from, cookie, options = '' }: Options): string {
  return `
    import node from '@astrojs/node';
    import coatcheck from '@coatcheck/astro';
    import { defineConfig, sessionDrivers } from 'astro/config';
    ${from && `import { memoryDriver } from '${from}';`}
    export default defineConfig({
      output: 'server',
      adapter: node({ mode: 'standalone' }),
      devToolbar: { enabled: false },
      integrations: [coatcheck(${options})],
      session: { driver: ${driver}, cookie: ${JSON.stringify(cookie)}, ttl: 86_400 },
    });`;
}

function siteWith(astro: 6 | 7, options: Options): SiteSpec {
  return { astro, driver: '', files: { ...files, 'astro.config.mjs': configOf(options) } };
}

const idle: Options = {
  driver: 'memoryDriver({ idleTtl: 1800 })',
  from: '@coatcheck/session-memory',
  cookie: { maxAge: 3600, path: '/', sameSite: 'strict' },
};

/** The `Set-Cookie` headers of an answer. */
const cookiesOf = ({ headers }: Answer): string[] => headers.getSetCookie();

/** The number of operations on the backend during some work. */
async function askedDuring(site: { url: string }, work: () => Promise<unknown>): Promise<number> {
  const asked = async (): Promise<number> => (await fetch(`${site.url}/asked`)).json() as Promise<number>;
  const before = await asked();
  await work();
  return (await asked()) - before;
}

/** A visitor with a session, and without the cookie that says that the session cookie is young. */
async function visitorWithSession(url: string): Promise<Visitor> {
  const visitor = createVisitor(url);
  await visitor.run([['set', 'user', 'ada']]);
  expect([...visitor.cookies.keys()]).toEqual(['astro-session']);
  return visitor;
}

describe.each(astros)('a built site on Astro %i', (astro) => {
  let site: Site;

  beforeAll(async () => {
    site = await startSite(await buildSite(siteWith(astro, idle)));
  });
  afterAll(() => site?.[Symbol.asyncDispose]());

  test('asks nothing of the backend for pages and visitors that need no session, and sends them no cookie', async () => {
    const visitor = await visitorWithSession(site.url);
    const answers: Answer[] = [];
    const asked = await askedDuring(site, async () => {
      for (const path of ['/plain', '/read', '/current']) answers.push(await createVisitor(site.url).fetch(path));
      for (const path of ['/plain', '/static/', '/static']) answers.push(await visitor.fetch(path));
    });
    expect(answers.slice(0, 5).map(({ status }) => status)).toEqual([200, 200, 200, 200, 200]);
    expect(answers.flatMap(cookiesOf)).toEqual([]);
    expect(asked).toBe(0);
  });

  test('sets no locals for prerendered pages', async () => {
    expect((await createVisitor(site.url).fetch('/static/')).body).toContain('<p>undefined</p>');
  });

  test('renews the cookie of a session that is only read, after half of its life', async () => {
    const visitor = createVisitor(site.url);
    const [first] = cookiesOf(await visitor.attempt([['set', 'user', 'ada']]));
    const id = visitor.sessionId();

    // The same cookie, with the same attributes, and one that lives half as long.
    const renewed = cookiesOf(await visitor.fetch('/read'));
    expect(renewed).toEqual([
      first,
      expect.stringMatching(/^astro-session-renewed=1; Max-Age=1800; Path=\/; HttpOnly; Secure; SameSite=Strict$/),
    ]);
    expect(first).toContain(`astro-session=${id}; Max-Age=3600`);

    // As long as the browser has the second cookie, nothing is sent. A read asks the backend once, a renewal twice.
    expect(cookiesOf(await visitor.fetch('/read'))).toEqual([]);
    expect(await askedDuring(site, () => visitor.fetch('/read'))).toBe(1);
    visitor.cookies.delete('astro-session-renewed');
    let again: string[] = [];
    expect(await askedDuring(site, async () => void (again = cookiesOf(await visitor.fetch('/read'))))).toBe(2);
    expect(again).toEqual(renewed);
    expect(visitor.sessionId()).toBe(id);
  });

  test('renews no cookie when Astro sends one, or deletes it', async () => {
    const names = async (steps: Parameters<Visitor['attempt']>[0]): Promise<string[]> => {
      const visitor = await visitorWithSession(site.url);
      return cookiesOf(await visitor.attempt([['get', 'user'], ...steps])).map((line) => line.split('=')[0]!);
    };
    expect(await names([['set', 'cart', 1]])).toEqual(['astro-session']);
    expect(await names([['regenerate']])).toEqual(['astro-session']);
    expect(await names([['destroy']])).toEqual(['astro-session']);
    expect(await names([])).toEqual(['astro-session', 'astro-session-renewed']);
  });

  test.each([
    { 'cache-control': 'public, max-age=60' },
    { 'cache-control': 's-maxage=60' },
    { 'cdn-cache-control': 'max-age=60' },
    { 'surrogate-control': 'max-age=60' },
    { 'edge-control': 'max-age=60' },
    { 'cache-control': 'must-revalidate, max-age=60' },
    { expires: 'Fri, 01 Jan 2100 00:00:00 GMT' },
    { 'x-accel-expires': '60' },
  ])('renews no cookie in a response for a shared cache: %o', async (headers) => {
    const visitor = await visitorWithSession(site.url);
    const shared = await visitor.fetch(`/read?headers=${encodeURIComponent(JSON.stringify(headers))}`);
    expect(shared.body).toBe('"ada"');
    expect(cookiesOf(shared)).toEqual([]);
  });

  test.each<Record<string, string>>([
    {},
    { 'cache-control': 'private, max-age=60' },
    { 'cache-control': 'max-age=0' },
    { 'cdn-cache-control': 'no-store' },
    { expires: '0' },
  ])('renews the cookie in a response that only the browser may store: %o', async (headers) => {
    const visitor = await visitorWithSession(site.url);
    const answer = await visitor.fetch(`/read?headers=${encodeURIComponent(JSON.stringify(headers))}`);
    expect(cookiesOf(answer)).toHaveLength(2);
    expect(answer.headers.get('cache-control')).toBe(headers['cache-control'] ?? 'private');
  });

  test('renews no cookie beside one that the page writes by hand, or when the page clears the data of the site', async () => {
    for (const headers of [{ 'set-cookie': 'astro-session=; Max-Age=0; Path=/' }, { 'clear-site-data': '"cookies"' }]) {
      const visitor = await visitorWithSession(site.url);
      const answer = await visitor.fetch(`/read?headers=${encodeURIComponent(JSON.stringify(headers))}`);
      expect(cookiesOf(answer)).toEqual(Object.values(headers).filter((value) => value.includes('=')));
    }
  });

  test('renews the cookie in a response whose headers cannot be changed', async () => {
    const visitor = await visitorWithSession(site.url);
    const answer = await visitor.fetch('/fixed');
    expect([answer.status, answer.headers.get('location')]).toEqual([302, `${site.url}/plain`]);
    const names = cookiesOf(answer).map((line) => line.split('=')[0]!);
    expect(names.sort()).toEqual(['astro-session', 'astro-session-renewed', 'theme']);
  });

  test('a session that begins after a rewrite has its cookie, although the middleware has asked for the session', async () => {
    const visitor = createVisitor(site.url);
    expect((await visitor.fetch('/rewritten')).body).toBe('signed in');
    expect((await visitor.fetch('/read')).body).toBe('"ada"');
  });

  test('renews no cookie of a session that does not exist', async () => {
    const visitor = createVisitor(site.url, [['astro-session', crypto.randomUUID()]]);
    expect(cookiesOf(await visitor.fetch('/read'))).toEqual([]);
  });

  test('a request learns that its session was destroyed meanwhile, and does not renew its cookie', async () => {
    const visitor = await visitorWithSession(site.url);
    const name = crypto.randomUUID();
    const gate = site.gate(name);
    const elsewhere = visitor.fork();
    const answer = visitor.fetch(`/long?gate=${name}`);
    await gate.arrived();
    await elsewhere.run([['destroy']]);
    await gate.open();
    expect((await answer).body).toBe('[false,true]');
    expect(cookiesOf(await answer)).toEqual([]);
  });

  test('`current()` describes the stored session without its id', async () => {
    const visitor = await visitorWithSession(site.url);
    const startedAt = Date.now();
    const { body } = await visitor.fetch('/current');
    const { current, again, destroyed } = JSON.parse(body);
    expect(current).toEqual({
      handle: expect.stringMatching(/^[\w-]{22}$/),
      created: expect.stringMatching(/Z$/),
      expires: expect.any(String),
    });
    expect(again).toEqual(current);
    expect(destroyed).toBe(false);
    expect(body).not.toContain(visitor.sessionId());
    // Half an hour from the read, which was after `startedAt`.
    expect(Date.parse(current.expires)).toBeGreaterThanOrEqual(startedAt + 1_800_000);
    expect(Date.parse(current.expires)).toBeLessThanOrEqual(Date.now() + 1_800_000);

    const later = JSON.parse((await visitor.fetch('/current?read')).body);
    expect(later).toMatchObject({ user: 'ada', current: { handle: current.handle } });
    const other = JSON.parse((await (await visitorWithSession(site.url)).fetch('/current')).body);
    expect(other.current.handle).not.toBe(current.handle);
    await visitor.run([['regenerate']]);
    expect(JSON.parse((await visitor.fetch('/current')).body).current.handle).not.toBe(current.handle);
  });

  test('`current()` reads the session once, and is null without a session', async () => {
    const visitor = await visitorWithSession(site.url);
    // Asking extends the session, so the first answer renews the cookie, with another read.
    expect(await askedDuring(site, () => visitor.fetch('/current'))).toBe(2);
    expect(visitor.cookies.has('astro-session-renewed')).toBe(true);
    expect(await askedDuring(site, () => visitor.fetch('/current'))).toBe(1);
    expect(JSON.parse((await createVisitor(site.url).fetch('/current')).body)).toMatchObject({
      current: null,
      destroyed: false,
    });
    for (const id of [crypto.randomUUID(), '../../etc']) {
      const stranger = createVisitor(site.url, [['astro-session', id]]);
      expect(JSON.parse((await stranger.fetch('/current')).body)).toMatchObject({ current: null, destroyed: false });
    }
  });
});

// Built on one version of Astro: what they test is decided while the configuration is read.
describe('a built site', () => {
  test('without `idleTtl` renews no cookie, unless it says so', async () => {
    const answers: Answer[] = [];
    const maxAge = 3650 * 86_400;
    // Neither build says anything: a variable is needed only when the site runs, and the other site ignores what is wrong with its cookie.
    for (const [driver, cookie, options] of [
      ["memoryDriver({ prefix: { fromEnv: 'COATCHECK_PREFIX' } })", { maxAge }, ''],
      ['memoryDriver()', { maxAge, domain: 'vercel.app' }, "{ renewCookie: true, ignore: ['cookie'] }"],
    ] as const) {
      const built = await buildSite(siteWith(7, { driver, from: idle.from, cookie, options }));
      expect(built.log).not.toContain('[@coatcheck/astro]');
      await using site = await startSite(built, { env: { COATCHECK_PREFIX: 'shop:' } });
      answers.push(await (await visitorWithSession(site.url)).fetch('/read'));
    }
    expect(answers.map((answer) => cookiesOf(answer).length)).toEqual([0, 2]);
    // Browsers keep a cookie for 400 days at most, so it is renewed after 200.
    expect(cookiesOf(answers[1]!)[1]).toContain(`astro-session-renewed=1; Max-Age=${200 * 86_400};`);
  });

  test('renews no cookie that browsers keep until they are closed, and says so', async () => {
    const options = '{ renewCookie: true }';
    const cookie = { domain: 'vercel.app' };
    const built = await buildSite(siteWith(7, { ...idle, driver: 'memoryDriver()', options, cookie }));
    expect(built.log).toContain('The session cookie cannot be renewed without `session.cookie.maxAge`');
    expect(built.log).toMatch(/\[@coatcheck\/astro\] `session\.cookie\.domain` is `vercel\.app`: browsers drop/);
    await using site = await startSite(built);
    expect(cookiesOf(await (await visitorWithSession(site.url)).fetch('/read'))).toEqual([]);
  });

  test('with a driver in a module of its own has `locals.sessions`, and renews cookies, but not in a response that Astro caches', async () => {
    const own = `
      import memory from '@coatcheck/session-memory/runtime';
      export default () => memory({ idleTtl: 1800 });`;
    const spec = siteWith(7, {
      ...idle,
      driver: "{ entrypoint: new URL('./src/own.js', import.meta.url) }",
      from: '',
      options: '{ renewCookie: true }',
    });
    const { 'astro.config.mjs': config, ...others } = spec.files!;
    const cached = config!
      .replace('{ defineConfig', '{ memoryCache, defineConfig')
      .replace('session: {', 'cache: { provider: memoryCache() },\n      session: {');
    const page = `
      export const GET = async ({ cache, session, url }) => {
        cache.set(JSON.parse(url.searchParams.get('options')));
        return Response.json(await session.get('user'));
      };`;
    const pages = { 'src/own.js': own, 'src/pages/cached.ts': page };
    const built = await buildSite({ ...spec, files: { ...others, ...pages, 'astro.config.mjs': cached } });
    expect(built.log).not.toContain('[@coatcheck/astro]');
    await using site = await startSite(built);
    const owner = await visitorWithSession(site.url);
    expect(cookiesOf(await owner.fetch('/read'))).toHaveLength(2);
    expect(JSON.parse((await owner.fetch('/current?read')).body)).toMatchObject({
      user: 'ada',
      current: { created: expect.stringMatching(/Z$/) },
    });
    const cookies: number[] = [];
    for (const options of [{ maxAge: 60 }, { tags: ['a'] }, false]) {
      const visitor = await visitorWithSession(site.url);
      const answer = await visitor.fetch(`/cached?options=${encodeURIComponent(JSON.stringify(options))}`);
      expect(answer.body).toBe('"ada"');
      cookies.push(cookiesOf(answer).length);
    }
    expect(cookies).toEqual([0, 0, 2]);
  });

  test("with a driver that is not Coatcheck's works, but `locals.sessions` says what it needs", async () => {
    const driver = 'sessionDrivers.lruCache({ max: 100 })';
    const spec = siteWith(7, { driver, from: '', cookie: { maxAge: 3600 } });
    const manifest = JSON.stringify({ type: 'module', dependencies: { '@coatcheck/session-redis': '*' } });
    const built = await buildSite({ ...spec, files: { ...spec.files, 'package.json': manifest } });
    expect(built.log).toContain('The session driver is unstorage/drivers/lru-cache.');
    expect(built.log).toContain('session-redis is installed. Set `session.driver` in astro.config:');
    expect(built.log).toContain('session: { driver: redisDriver() },');
    await using site = await startSite(built);
    const visitor = await visitorWithSession(site.url);
    expect((await visitor.fetch('/read')).body).toBe('"ada"');
    // Also for visitors without a session.
    expect((await createVisitor(site.url).fetch('/current')).status).toBe(500);
    expect((await visitor.fetch('/current')).status).toBe(500);
    await site.logged(
      /\[@coatcheck\/astro\] `locals\.sessions` needs a Coatcheck driver .*`astro dev` and `astro build` log what to write/,
    );
  });
});

describe('the checks', () => {
  const memory = { driver: 'memoryDriver()', from: '@coatcheck/session-memory' };

  test('fail a build for what cannot work', async () => {
    const cookie = { sameSite: 'none', secure: false };
    await expect(buildSite(siteWith(7, { ...memory, cookie }))).rejects.toThrow(
      /`session\.cookie\.sameSite: 'none'` needs `session\.cookie\.secure`: browsers drop the cookie/,
    );
  });

  test("refuse middleware on Vercel's edge, where there are no sessions", async () => {
    const config = `
      import vercel from '@astrojs/vercel';
      import coatcheck from '@coatcheck/astro';
      import { upstashDriver } from '@coatcheck/session-upstash';
      import { defineConfig } from 'astro/config';
      export default defineConfig({
        output: 'server',
        adapter: vercel({ middlewareMode: 'edge' }),
        integrations: [coatcheck()],
        session: { driver: upstashDriver() },
      });`;
    const spec = (text: string): SiteSpec => ({ astro: '7-vercel', driver: '', files: { 'astro.config.mjs': text } });
    await expect(buildSite(spec(config))).rejects.toThrow(
      /\[@coatcheck\/astro\] The adapter runs middleware on the edge/,
    );
    const classic = await buildSite(spec(config.replace("{ middlewareMode: 'edge' }", '')));
    expect(classic.log).not.toContain('[@coatcheck/astro]');
  });

  test('refuse a schema that is none', async () => {
    const building = buildSite(siteWith(7, { ...memory, options: "{ schema: './src/gates.ts' }" }));
    await expect(building).rejects.toThrow(/`schema` is '\.\/src\/gates\.ts', but the module has no default export/);
    await expect(building).rejects.toThrow("import { z } from 'astro/zod';");
  });
});

// One server, whose configuration changes: a restart takes less time than a start.
test.each(astros)('`astro dev` on Astro %i warns of a missing variable once, and renews cookies', async (astro) => {
  const driver = "memoryDriver({ idleTtl: 1800, prefix: { fromEnv: 'COATCHECK_PREFIX' } })";
  const spec = siteWith(astro, { ...idle, driver });
  const acme = `
    import memory from '@coatcheck/session-memory/runtime';
    export default ({ idleTtl }) => memory({ idleTtl });`;
  const more = {
    'astro.config.mjs': spec.files!['astro.config.mjs']!.replace('output:', "site: 'https://shop.example/0', output:"),
    'src/pages/site.ts': `export const GET = ({ site }) => Response.json(site.href);`,
    '.env': 'COATCHECK_OTHER=shop:',
    'node_modules/acme-sessions/package.json': JSON.stringify({
      name: 'acme-sessions',
      type: 'module',
      dependencies: { '@coatcheck/session-memory': '*' },
    }),
    'node_modules/acme-sessions/driver.js': acme,
  };
  await using site = await devSite({ ...spec, files: { ...spec.files, ...more } });
  const warnings = (): string[] | null => site.logs().match(/\[@coatcheck\/astro\] .*/g);
  let revision = 0;
  /** Resolves when the server answers with the new configuration. */
  const restart = async (change: (config: string) => string): Promise<void> => {
    const name = `https://shop.example/${++revision}`;
    await site.edit('astro.config.mjs', (config) => change(config).replace(/https:\/\/shop\.example\/\d+/, name));
    await expect.poll(async () => (await fetch(`${site.url}/site`)).json()).toBe(name);
  };
  const warning = expect.stringContaining('COATCHECK_PREFIX is not set, and session-memory needs it');
  expect(warnings()).toEqual([warning]);
  // The new configuration still has the problem.
  await restart((config) => config.replace('memoryDriver({', 'memoryDriver({ ttl: 60,'));
  expect(warnings()).toEqual([warning]);
  // A variable of a file.
  await restart((config) => config.replace('COATCHECK_PREFIX', 'COATCHECK_OTHER'));
  expect(warnings()).toEqual([warning]);
  const visitor = await visitorWithSession(site.url);
  const renewed = cookiesOf(await visitor.fetch('/read'));
  expect(renewed).toEqual([
    expect.stringMatching(/^astro-session=[\w-]{36}; Max-Age=3600; Path=\/; HttpOnly; SameSite=Strict$/),
    expect.stringMatching(/^astro-session-renewed=1; Max-Age=1800; Path=\/; HttpOnly; SameSite=Strict$/),
  ]);
  expect(JSON.parse((await visitor.fetch('/current')).body)).toMatchObject({
    current: { created: expect.stringMatching(/Z$/) },
  });
  expect(await askedDuring(site, () => visitor.fetch('/plain'))).toBe(0);

  // A driver in another package, by its name, that creates one of ours. In this workspace, Astro finds the package only by an alias.
  await restart((config) =>
    config
      .replace(
        /driver: memoryDriver.*? } }\),/,
        "driver: { entrypoint: 'acme-sessions/driver', config: { idleTtl: 1800 } },",
      )
      .replace(
        'integrations:',
        `vite: { resolve: { alias: { 'acme-sessions': new URL('node_modules/acme-sessions', import.meta.url).pathname } } }, integrations:`,
      ),
  );
  const other = await visitorWithSession(site.url);
  expect(JSON.parse((await other.fetch('/current?read')).body)).toMatchObject({
    current: { created: expect.stringMatching(/Z$/) },
    user: 'ada',
  });
  expect(warnings()).toEqual([warning]);
});

describe('a built Worker', () => {
  let workers: Workers;
  let log: string;
  beforeAll(async () => {
    const spec = workerSite({ files });
    const config = spec
      .files!['astro.config.mjs']!.replace(
        'import cloudflare',
        "import coatcheck from '@coatcheck/astro';\nimport cloudflare",
      )
      .replace(
        'session: {',
        'integrations: [coatcheck({ renewCookie: true })],\n  session: { ttl: 86_400, cookie: { maxAge: 3600 },',
      );
    const built = await buildSite({ ...spec, files: { ...spec.files, 'astro.config.mjs': config } });
    log = built.log;
    workers = await startWorkers(built.dist);
  });
  afterAll(() => workers?.[Symbol.asyncDispose]());

  test('was built with advice', () => {
    expect(log).toContain('KV loses updates');
  });

  test('has `locals.sessions`, and renews the cookie', async () => {
    const visitor = await visitorWithSession(workers.urls[0]!);
    expect(cookiesOf(await visitor.fetch('/plain'))).toEqual([]);
    expect(cookiesOf(await visitor.fetch('/read'))).toHaveLength(2);
    const { current } = JSON.parse((await visitor.fetch('/current')).body);
    const expires = expect.stringMatching(/Z$/);
    expect(current).toEqual({
      handle: expect.stringMatching(/^[\w-]{22}$/),
      created: expect.stringMatching(/Z$/),
      expires,
    });
    await visitor.run([['destroy']]);
    expect(JSON.parse((await visitor.fetch('/current')).body)).toMatchObject({ current: null });
  });
});
