import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { serve as serveHono } from '@hono/node-server';
import { sveltekit } from '@sveltejs/kit/vite';
import { H3, serve as serveH3 } from 'h3';
import { Hono } from 'hono';
import { createServer as createViteServer } from 'vite';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createVisitor } from '@coatcheck/test-support/http';
import { buildSite, startSite } from '@coatcheck/test-support/site';
import withH3Session from './support/frameworks/h3.ts';
import { withSession } from './support/frameworks/hono.ts';
import { server as nodeServer } from './support/frameworks/node.ts';
import { sessions } from './support/frameworks/sessions.ts';

/** The same small site on each framework, with the code from the README: GET answers `Visit <n>`, and DELETE signs out. */
interface Site {
  url: string;
  stop(): unknown;
}

const visit = (count = 0) => count + 1;

const starts: Record<string, () => Promise<Site>> = {
  async Hono() {
    const app = new Hono()
      .use(withSession)
      .get('/', withSession, async (context) => {
        const visits = await context.get('session').update('visits', visit);
        return context.text(`Visit ${visits}`);
      })
      .delete('/', withSession, (context) => {
        context.get('session').destroy();
        return context.body(null, 204);
      });
    const server = serveHono({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' });
    await once(server, 'listening');
    return { url: urlOf(server.address()), stop: () => server.close() };
  },

  async h3() {
    const app = new H3()
      .use(withH3Session)
      .get('/', async (event) => `Visit ${await event.context.session.update('visits', visit)}`)
      .delete('/', (event) => {
        event.context.session.destroy();
        return null;
      });
    const server = serveH3(app, { port: 0, hostname: '127.0.0.1', silent: true });
    await server.ready();
    return { url: server.url!.replace(/\/$/, ''), stop: () => server.close(true) };
  },

  async SvelteKit() {
    const dir = await mkdtemp(join(tmpdir(), 'coatcheck-sveltekit-'));
    const root = fileURLToPath(new URL('support/frameworks/sveltekit-app', import.meta.url));
    const server = await createViteServer({
      root,
      configFile: false,
      cacheDir: join(dir, 'vite'),
      plugins: [sveltekit({ outDir: join(dir, 'kit') })],
      server: { port: 0, host: '127.0.0.1', ws: false, watch: null },
      logLevel: 'error',
    });
    await server.listen();
    return {
      url: urlOf(server.httpServer!.address()),
      async stop() {
        await server.close();
        // SvelteKit writes types into node_modules of the app.
        for (const made of [dir, join(root, 'node_modules')]) await rm(made, { recursive: true, force: true });
      },
    };
  },

  async Astro() {
    const source = (name: string) => readFile(new URL(`support/frameworks/${name}`, import.meta.url), 'utf8');
    const built = await buildSite({
      astro: 7,
      driver: 'memoryDriver()',
      files: {
        'src/middleware.ts': await source('astro.ts'),
        'src/sessions.ts': await source('sessions.ts'),
        'src/pages/index.ts': `
          export const GET = async ({ locals, session }) => {
            session.set('of', 'Astro.session');
            return new Response('Visit ' + (await locals.session.update('visits', (count = 0) => count + 1)));
          };
          export const DELETE = ({ locals }) => {
            locals.session.destroy();
            return new Response(null, { status: 204 });
          };`,
      },
    });
    const site = await startSite(built);
    return { url: site.url, stop: () => site.stop() };
  },

  async 'node:http'() {
    nodeServer.listen(0, '127.0.0.1');
    await once(nodeServer, 'listening');
    return { url: urlOf(nodeServer.address()), stop: () => nodeServer.close() };
  },
};

function urlOf(address: AddressInfo | string | null): string {
  return `http://127.0.0.1:${(address as AddressInfo).port}`;
}

const sites = new Map<string, Site>();

beforeAll(async () => {
  const started = Object.entries(starts).map(async ([name, start]) => void sites.set(name, await start()));
  await Promise.all(started);
}, 200_000);

afterAll(async () => {
  for (const site of sites.values()) await site.stop();
});

const names = Object.keys(starts);
const cookieOf = (name: string) => (name === 'Astro' ? 'visitor' : 'astro-session');

describe.each(names)('%s', (name) => {
  const open = (cookies?: Iterable<[string, string]>) => createVisitor(sites.get(name)!.url, cookies);
  const ours = (headers: Headers) => headers.getSetCookie().filter((line) => line.startsWith(`${cookieOf(name)}=`));

  it('a visitor gets one cookie, which identifies the session', async () => {
    const visitor = open();
    const first = await visitor.fetch('/');
    expect(first.body).toBe('Visit 1');
    expect(ours(first.headers)).toEqual([
      expect.stringMatching(/^[\w-]+=[0-9a-f-]{36}; Path=\/; HttpOnly;.* SameSite=Lax$/),
    ]);
    const second = await visitor.fetch('/');
    expect(second.body).toBe('Visit 2');
    expect(ours(second.headers)).toEqual([]);
    expect((await open().fetch('/')).body).toBe('Visit 1');
  });

  it('concurrent visits are all counted', async () => {
    const visitor = open();
    await visitor.fetch('/');
    await Promise.all(Array.from({ length: 16 }, () => visitor.fetch('/')));
    expect((await visitor.fetch('/')).body).toBe('Visit 18');
  });

  it('an unknown id is replaced', async () => {
    const id = crypto.randomUUID();
    const visitor = open([[cookieOf(name), id]]);
    expect((await visitor.fetch('/')).body).toBe('Visit 1');
    expect(visitor.cookies.get(cookieOf(name))).not.toBe(id);
  });
});

// The node:http example has no sign-out.
it.each(names.filter((name) => name !== 'node:http'))(
  'signing out of %s clears the cookie, and the session is gone',
  async (name) => {
    const visitor = createVisitor(sites.get(name)!.url);
    await visitor.fetch('/');
    const copy = visitor.fork();
    const answer = await visitor.fetch('/', { method: 'DELETE' });
    expect(answer.headers.getSetCookie().join()).toContain(`${cookieOf(name)}=; Max-Age=0`);
    expect(visitor.cookies.has(cookieOf(name))).toBe(false);
    expect((await copy.fetch('/')).body).toBe('Visit 1');
  },
);

it('all servers of one process share the session', async () => {
  const visitor = createVisitor('http://unused.example');
  for (const name of ['Hono', 'h3', 'SvelteKit', 'node:http']) await visitor.fetch(sites.get(name)!.url);
  const session = sessions.open(`astro-session=${visitor.sessionId()}`);
  expect(await session.get('visits')).toBe(4);
});

it('in Astro middleware, it works next to `Astro.session`, with its own cookie', async () => {
  const visitor = createVisitor(sites.get('Astro')!.url);
  await visitor.fetch('/');
  expect([...visitor.cookies.keys()].sort()).toEqual(['astro-session', 'visitor']);
  expect((await visitor.fetch('/')).body).toBe('Visit 2');
});
