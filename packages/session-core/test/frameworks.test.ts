import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { sveltekit } from '@sveltejs/kit/vite';
import { createContext } from 'astro/middleware';
import { H3 } from 'h3';
import { Hono } from 'hono';
import { createServer } from 'vite';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { onRequest } from './support/frameworks/astro.ts';
import withH3Session from './support/frameworks/h3.ts';
import { withSession } from './support/frameworks/hono.ts';
import { server as nodeServer } from './support/frameworks/node.ts';

type Fetch = (request: Request) => Response | Promise<Response>;

interface Framework {
  name: string;
  /** Where the sites of the framework lie in these tests. */
  url: string;
  cookieName: string;
  /** Counts visits: GET answers `Visit <n>`, `/?elsewhere` redirects, DELETE signs out. */
  fetch: Fetch;
}

const frameworks: Framework[] = [];

function createHonoApp(): Fetch {
  const app = new Hono().use(withSession);
  const counting = app.use(withSession).get('/', async (context) => {
    const visits = await context.get('session').update('visits', (count = 0) => count + 1);
    return context.req.query('elsewhere') === undefined ? context.text(`Visit ${visits}`) : context.redirect('/', 303);
  });
  counting.delete('/', withSession, (context) => (context.get('session').destroy(), context.body(null, 204)));
  return (request) => counting.fetch(request);
}

describe('placeholder', () => {
  it('x', () => expect(frameworks).toEqual([]));
});
